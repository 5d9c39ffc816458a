"""Every shape of a graph before anything is computed: it runs on tensors without memory."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Interpreter, Node
from torch.fx.node import map_aggregate

from sparring.workers.errors import Refused, shown

BATCHES = (1, 2, 5, 64)
"""Numbers of rows tried."""
MAX_ELEMENTS = 2**29
"""Elements of any one tensor at the largest batch: 2 GiB in float32."""
_META = torch.device("meta")
_HINT = "Run the model on batches of several sizes before exporting it, and export with a dynamic batch dimension."


class ShapeRun(Interpreter):
    """One pass over a graph on the meta device: counts the elements of every result and keeps its shape.

    Raises Refused naming the node that fails (`graph_error`) or makes too much (`tensor_too_large`).
    """

    def __init__(self, module: torch.fx.GraphModule, state: Mapping[str, torch.Tensor]) -> None:
        """`state`: parameters and buffers on the meta device."""
        super().__init__(module, garbage_collect_values=False)
        self.state = state
        self.shapes: dict[Node, tuple[int, ...]] = {}
        """Of every tensor, by its node."""

    def fetch_attr(self, target: str) -> torch.Tensor:
        """A parameter or buffer."""
        return self.state[target]

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """An operator, on the meta device whatever device it names."""
        return target(*map_aggregate(args, _on_meta), **map_aggregate(kwargs, _on_meta))

    def run_node(self, n: Node) -> Any:
        """One node."""
        try:
            result = super().run_node(n)
        except Refused:
            raise
        except Exception as error:  # what an operator raises on bad arguments has no common class
            reason = str(error).strip().split("\n")[0][:300]
            message = f"node {n.name} ({n.target}) cannot be computed: {reason}"
            raise Refused("bad_model", message, hint=_HINT, detail="graph_error") from error
        map_aggregate(result, lambda part: _count(part, n))
        if isinstance(result, torch.Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def check_shapes(module: torch.fx.GraphModule, row: tuple[int, ...], dtype: torch.dtype, batches: tuple[int, ...] = BATCHES) -> None:
    """Propagate shapes for several batch sizes, computing nothing.

    Raises Refused if a node fails (`graph_error`), asks for too much memory (`tensor_too_large`), or changes a weight, a
    buffer or the input in place (`stateful`).
    """
    state = on_meta(module)
    for batch in batches:
        x = torch.empty((batch, *row), dtype=dtype, device=_META)
        with torch.no_grad():
            ShapeRun(module, state).run(x)
        changed = [name for name, tensor in state.items() if tensor._version] + (["its input"] if x._version else [])
        if changed:
            message = f"the model changes {shown(changed[0])} in place while it predicts"
            raise Refused("bad_model", message, hint="Export it in evaluation mode, without counters or caches.", detail="stateful")


def on_meta(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, as tensors without memory."""
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {name: torch.empty_like(tensor, device=_META, requires_grad=False) for name, tensor in named}


def _on_meta(argument: Any) -> Any:
    return _META if isinstance(argument, torch.device) else argument


def _count(part: Any, node: Node) -> Any:
    if isinstance(part, torch.Tensor) and part.numel() > MAX_ELEMENTS:
        message = f"node {node.name} ({node.target}) makes a tensor of {part.numel()} elements; at most {MAX_ELEMENTS} are allowed"
        raise Refused("bad_model", message, hint="Upload a smaller model, or smaller inputs.", detail="tensor_too_large")
    return part

"""Every shape and every byte of a graph before anything is computed: it runs on tensors without memory."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Interpreter, Node
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

from sparring.workers.errors import Refused, shown

BATCHES = (1, 2, 5, 64)
"""Numbers of rows tried."""
BUDGET = 4 << 30
"""Bytes that a pass over up to BUDGET_ROWS rows may hold at once, on top of its weights; more rows may hold more in proportion."""
BUDGET_ROWS = 16
"""The smallest batches that models are measured in."""
MAX_ELEMENTS = 2**32
"""Elements of any one result, at any batch: a view may be larger than its memory, and is computed with all the same."""
_META = torch.device("meta")
_HINT = "Run the model on batches of several sizes before exporting it, and export with a dynamic batch dimension."


class _Meter(TorchDispatchMode):
    """Adds up the bytes that are alive, results and what operators make on the way to them. Raises _Exceeded over `budget`."""

    def __init__(self, budget: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.budget = budget
        self.alive = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operator that no other operator is made of."""
        result = func(*args, **(kwargs or {}))
        map_aggregate(result, self._count)
        return result

    def _count(self, part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            storage = part.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
            if self.alive > self.budget:
                raise _Exceeded(f"needs {self.alive} bytes at once; at most {self.budget} are allowed")
        return part

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


class _Exceeded(Exception):
    """A node takes too much memory, or time; says how much."""


def _count(part: Any) -> Any:
    if isinstance(part, torch.Tensor) and part.numel() > MAX_ELEMENTS:
        raise _Exceeded(f"has a result of {part.numel()} elements; at most {MAX_ELEMENTS} are allowed")
    return part


class ShapeRun(Interpreter):
    """One pass over a graph on the meta device: keeps the shape of every result.

    Raises Refused naming the node that fails (`graph_error`).
    """

    def __init__(self, module: torch.fx.GraphModule, state: Mapping[str, torch.Tensor]) -> None:
        """`state`: parameters and buffers on the meta device."""
        super().__init__(module)
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
            map_aggregate(result, _count)
        except Refused:
            raise
        except _Exceeded as exceeded:
            message = f"node {n.name} ({n.target}) {exceeded}"
            raise Refused("bad_model", message, hint="Upload a smaller model, or smaller inputs.", detail="tensor_too_large") from exceeded
        except Exception as error:  # what an operator raises on bad arguments has no common class
            reason = str(error).strip().split("\n")[0][:300]
            message = f"node {n.name} ({n.target}) cannot be computed: {reason}"
            raise Refused("bad_model", message, hint=_HINT, detail="graph_error") from error
        if isinstance(result, torch.Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def check_shapes(
    module: torch.fx.GraphModule, row: tuple[int, ...], dtype: torch.dtype, batches: tuple[int, ...] = BATCHES, budget: int | None = None
) -> None:
    """Propagate shapes for several batch sizes, computing nothing.

    `budget`: bytes that may be alive at once; in proportion to the batch if not given. Raises Refused if a node fails
    (`graph_error`), takes more memory than that (`tensor_too_large`), or changes a weight, a buffer or the input in place
    (`stateful`).
    """
    state = on_meta(module)
    for batch in batches:
        x = torch.empty((batch, *row), dtype=dtype, device=_META)
        with torch.no_grad(), _Meter(budget or BUDGET * max(batch, BUDGET_ROWS) // BUDGET_ROWS):
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

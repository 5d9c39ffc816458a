"""Fresh weights for any model: one made of layers, or a graph of operators, where what takes a tensor says what it is."""

import math

import torch
from torch import Tensor, fx, nn

from sparring.workers import architectures
from sparring.workers.errors import Refused

_LAYERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "_conv", "_conv_transpose", "_gemm"), (1, 2)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), (1, 2)),
    **dict.fromkeys(("matmul", "mm", "_matmul"), (1, -1)),
    "addmm": (2, 0),
}
"""Where an operator takes its weight and its bias."""
_TURNED = 6
"""Which argument of the converter's _gemm says that its weight has what enters as its last axis."""
_FIRST_IN = frozenset({"matmul", "mm", "_matmul", "addmm"})
"""Operators whose weight has what enters as its first axis."""
_NORMS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("batch_norm", "instance_norm", "_batch_norm"), (1, 2, 3, 4)),
    **dict.fromkeys(("layer_norm", "group_norm"), (2, 3)),
}
"""Where a norm takes scale and shift, and running mean and variance."""
_FRESH = (1.0, 0.0, 0.0, 1.0)
_TURNS = frozenset({"t", "transpose", "permute", "numpy_T"})


@torch.no_grad()
def afresh(module: nn.Module, seed: int) -> None:
    """Give a model new weights, drawn as torch's own layers draw theirs.

    Raises:
        Refused: what some of its weights are is not known.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if isinstance(module, fx.GraphModule):
            _graph(module)
        else:
            architectures.afresh(module)


def _graph(module: fx.GraphModule) -> None:
    left = {name for name, _ in module.named_parameters()}
    for node in module.graph.nodes:
        kind = _kind(node)
        if kind in _LAYERS:
            left -= _layer(module, node, kind)
        known = dict(zip(_NORMS.get(kind, ()), _FRESH, strict=False))
        if kind == "add":  # of a bias and a product
            known = {0: 0.0, 1: 0.0}
        for at, value in known.items():
            name, _ = _source(node, at)
            if name in left or (name is not None and kind in _NORMS):
                _tensor(module, name).fill_(value)
                left.discard(name)
    if left:
        message = f"the model cannot begin afresh: nothing is known of how {min(left)} begins"
        raise Refused("unsupported", message, hint="Leave scratch out, and its weights are trained on.", detail="scratch_unsupported")


def _layer(module: fx.GraphModule, node: fx.Node, kind: str) -> set[str]:
    """Draw a layer's weight and bias; their names."""
    at, beside = _LAYERS[kind]
    weight, turned = _source(node, at)
    if weight is None:
        return set()
    tensor = _tensor(module, weight)
    first = turned != (kind in _FIRST_IN or (kind == "_gemm" and not node.args[_TURNED]))
    bound = 1 / math.sqrt(max(1, tensor.shape[0] if first else tensor[0].numel()))
    tensor.uniform_(-bound, bound)
    bias, _ = _source(node, beside) if beside >= 0 else (None, False)
    if bias is not None:
        _tensor(module, bias).uniform_(-bound, bound)
    return {weight} | ({bias} if bias is not None else set())


def _kind(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", "")) if node.op == "call_function" else ""


def _source(node: fx.Node, at: int) -> tuple[str | None, bool]:
    """The tensor of the model that an operator takes there, and whether its axes are turned on the way."""
    given = node.args[at] if at < len(node.args) else None
    turned = False
    while isinstance(given, fx.Node) and _kind(given) in _TURNS:
        given, turned = given.args[0], not turned
    return (str(given.target), turned) if isinstance(given, fx.Node) and given.op == "get_attr" else (None, False)


def _tensor(module: fx.GraphModule, name: str) -> Tensor:
    folder, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(folder), leaf)
    return tensor

"""How each operator of a model carries bounds. One table serves every graph: whatever a model is made of, it is traced to aten."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
_ROWS = 11
"""Rows of the pass that is traced; every value must have them first."""
_WEIGHTED: dict[Any, tuple[int, int, int | None]] = {
    aten.mm.default: (0, 1, None),
    aten.addmm.default: (1, 2, 0),
    aten.convolution.default: (0, 1, 2),
}
"""Weighted sums, and where they are given the rows, the weights and the bias."""
_VIEWS = {aten.view.default, aten._unsafe_view.default, aten.expand.default}
_STEADY = _VIEWS | {
    *(aten.permute.default, aten.transpose.int, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.slice.Tensor),
    *(aten.select.int, aten.cat.default, aten.constant_pad_nd.default, aten.clone.default, aten.alias.default, aten.detach.default),
    *(aten.avg_pool2d.default, aten.avg_pool3d.default, aten._adaptive_avg_pool2d.default, aten.mean.dim, aten.sum.dim_IntList),
    *(aten.add.Tensor, aten.add.Scalar),
}
"""Linear, and rising in every value they are given."""
_SCALED = {
    *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.sub.Tensor, aten.sub.Scalar),
    *(aten.rsub.Scalar, aten.neg.default, aten.native_batch_norm.default),
}
"""Linear, each entry rising or falling in the one it comes from, if the other operand is constant."""
_PASSED = {operator.getitem, aten._to_copy.default}
"""Of several answers the first; other digits of the same number."""
_KINKED: dict[Any, float] = {aten.relu.default: 0.0, aten.leaky_relu.default: 0.01}
"""Two lines that meet at 0: the slope left of it, where the operator is not told another."""
_SMOOTH = {
    *(aten.sigmoid.default, aten.tanh.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default),
    *(aten.elu.default, aten.softplus.default, aten.hardsigmoid.default),
}
"""Rising, with a slope that first grows and then falls: between two points it is nowhere less than at both."""
_POOLED = aten.max_pool2d_with_indices.default
_ORDERLY = {aten._softmax.default, aten._log_softmax.default, aten.log.default, aten.clamp_min.default}
"""What may follow the scores without changing their order."""


class Unbounded(ValueError):
    """There is no bound for this model; the message says why."""


class Ends(NamedTuple):
    """A value lies between these (B, …)."""

    low: Tensor
    high: Tensor


class Lines(NamedTuple):
    """A curve lies above `low_slope h + low_shift` and below `high_slope h + high_shift`, all (B, …)."""

    low_slope: Tensor
    low_shift: Tensor
    high_slope: Tensor
    high_shift: Tensor

    def at(self, h: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both at h (N, …), of the balls `rows` (N,)."""
        return self.low_slope[rows] * h + self.low_shift[rows], self.high_slope[rows] * h + self.high_shift[rows]


class Pooled(NamedTuple):
    """A maximum is no less than the entry at `place`, and no more than `high`, both (B, C, H, W)."""

    place: Tensor
    high: Tensor

    def at(self, h: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both at h (N, …), of the balls `rows` (N,)."""
        high = self.high[rows]
        return h.flatten(2).gather(2, self.place[rows].flatten(2)).reshape(high.shape), high


class Traced(NamedTuple):
    """A model as aten operators."""

    nodes: tuple[fx.Node, ...]
    """From the input to the answer."""
    constants: dict[fx.Node, Any]
    """Values that the input does not reach, in float64."""
    scores: fx.Node
    """The logits, or what has their order."""
    width: int
    """Numbers that the values of one row hold together."""


def traced(model: nn.Module, x: Tensor) -> Traced:
    """The operators that `model` runs on rows like x (B, …), for any number of rows.

    Raises:
        Unbounded: some operator has no bound; and whatever the model itself raises.
    """
    with torch.no_grad():
        module = make_fx(functionalize(model, remove="mutations"))(x[:1].expand(_ROWS, *x.shape[1:]).clone())
        module.graph.eliminate_dead_code()
        source, *nodes, output = module.graph.nodes
        scores: Any = output.args[0]
        while scores.target in _ORDERLY and scores.args[1:2] not in ((0,), (-2,)):  # no softmax over the rows
            scores = scores.args[0]
        raw = _constants(module, nodes)
        constants = {node: value.double() if _is_real(value) else value for node, value in raw.items()}
        width = _check(source, [node for node in nodes if node not in raw], constants, scores, x)
    return Traced((source, *nodes), constants, scores, width)


def _constants(module: fx.GraphModule, nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        target: Any = node.target
        if node.op == "get_attr":
            values[node] = getattr(module, target).detach()
        elif all(each in values for each in node.all_input_nodes):
            if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
                raise Unbounded(f"{target} draws at random")
            values[node] = target(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))
    return values


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _check(source: fx.Node, moving: list[fx.Node], constants: dict[fx.Node, Any], scores: fx.Node, x: Tensor) -> int:
    """Raises Unbounded at the first operator without a bound; frees views from the number of rows; returns the width."""
    values: dict[fx.Node, Any] = {**constants, source: x[:1].double().expand(_ROWS, *x.shape[1:])}
    bounding, width = True, 0
    for node in moving:
        if bounding and not _supported(node, constants):
            raise Unbounded(f"operator {node.target} has no bound here")
        value = values[node] = call(node, values.__getitem__)
        if value.dim() < 2 or len(value) != _ROWS:
            raise Unbounded(f"operator {node.target} does not keep rows apart")
        if node.target in _VIEWS:
            node.args = (node.args[0], [-1, *value.shape[1:]])
            node.target = node.target if node.target is aten.expand.default else aten.reshape.default
        width += value[0].numel()
        bounding = bounding and node is not scores
    if bounding:
        raise Unbounded("the input does not reach the scores")
    return width


def _supported(node: fx.Node, constants: dict[fx.Node, Any]) -> bool:
    """Whether the table covers this use of an operator."""
    target, args = node.target, node.args
    moving = [at for at, each in enumerate(args) if isinstance(each, fx.Node) and each not in constants]
    if target is aten._to_copy.default:
        return node.kwargs.get("dtype", torch.float32) in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if node.kwargs.keys() - {"memory_format"}:
        return False
    if target is operator.getitem:
        return bool(args[1] == 0)
    if target in _WEIGHTED:
        return moving == [_WEIGHTED[target][0]]
    if target is aten.native_batch_norm.default and args[5]:
        return False
    if target in _SCALED:
        return moving == [0] or (target is aten.sub.Tensor) or (moving == [1] and target is aten.mul.Tensor)
    if target in (aten.elu.default, aten.softplus.default):
        return all(isinstance(each, int | float) and each > 0 for each in args[1:])
    return target in _STEADY or target in _SMOOTH or target is _POOLED or (target in _KINKED and 0 <= _left(node) <= 1)


def _left(node: fx.Node) -> Any:
    """The slope of a kinked operator left of 0."""
    return node.args[1] if len(node.args) > 1 else _KINKED[node.target]


def call(node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """What an operator answers to such values. Of several answers, as of a pool, the first; digits are never given up."""
    target: Any = node.target
    if target in _PASSED:
        return value(node.all_input_nodes[0])
    answer = target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
    return answer[0] if isinstance(answer, tuple) else answer


def is_kinked(node: fx.Node) -> bool:
    """Two lines that meet at 0."""
    return node.target in _KINKED


def is_curved(node: fx.Node) -> bool:
    """Not linear."""
    return node.target in _KINKED or node.target in _SMOOTH or node.target is _POOLED


def bounded(node: fx.Node, ends: dict[fx.Node, Any]) -> Ends:
    """The ends of what an operator answers, from those of what it is given."""
    target: Any = node.target
    if target in _WEIGHTED:
        data, weight, bias = _WEIGHTED[target]
        args: list[Any] = [*fx.map_arg(node.args, ends.__getitem__)]
        low, high = args[data]
        args[data] = (low + high) / 2
        centre = target(*args)
        args[data], args[weight] = (high - low) / 2, args[weight].abs()
        if bias is not None and args[bias] is not None:
            args[bias] = torch.zeros_like(args[bias])
        radius = target(*args)
        return Ends(centre - radius, centre + radius)
    crossed = node.args[1] if target is aten.sub.Tensor else None  # of a difference, the other end

    def end(at: int) -> Any:
        return call(node, lambda each: ends[each][1 - at if each is crossed else at] if isinstance(ends[each], Ends) else ends[each])

    first, second = end(0), end(1)
    return Ends(torch.minimum(first, second), torch.maximum(first, second))


def between(node: fx.Node, ends: Ends) -> Lines | Pooled:
    """What holds a curve from both sides, between the ends of what it is given."""
    target: Any = node.target
    (low, high), others = ends, node.args[1:]
    if target is _POOLED:
        return Pooled(target(low, *others)[1], target(high, *others)[0])
    first, last = target(low, *others), target(high, *others)
    if target in _KINKED:
        span = high - low
        chord = torch.where(span > 0, (last - first) / torch.where(span > 0, span, 1.0), 0.0)
        shift = first - chord * low
        crossing = (low < 0) & (high > 0)
        lower = torch.where(crossing, torch.where(high > -low, 1.0, _left(node)), chord)
        return Lines(lower, torch.where(crossing, 0.0, shift), chord, shift)
    least = torch.minimum(_slope(node, low), _slope(node, high))
    return Lines(least, first - least * low, least, last - least * high)


def _slope(node: fx.Node, at: Tensor) -> Tensor:
    target: Any = node.target
    with torch.enable_grad():
        x = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(target(x, *node.args[1:]).sum(), x)
    return slope

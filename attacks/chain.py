"""The layers a model begins with, as a chain of pictures: which inputs each output looks at, and what it costs to compute.

A tape is cut in three: a beginning that is done in full, stages from picture to picture, and an end that is done in full.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks.tape import At, Step, Tape

_EXACT = frozenset({"add", "sub", "mul", "div", "relu", "relu6", "leaky_relu", "hardtanh", "clamp", "batch_norm", "dropout"})
_SMOOTH = frozenset({"elu", "selu", "celu", "silu", "sigmoid", "tanh", "softplus", "hardswish", "hardsigmoid"})
_ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding", "ceil_mode"),
}
_VECTOR = 128
"""Numbers that are computed together, whatever the processor."""


class Reach(NamedTuple):
    """Along one axis: output i of a layer looks at `span` inputs from i * stride - padding on."""

    span: int = 1
    stride: int = 1
    padding: int = 0
    size: int = 0
    """Of its whole output, as far as later layers look at it."""


class Layer(NamedTuple):
    """A step of the model, on a patch that brings its margin along."""

    call: Callable[[Tensor], Tensor]
    reach: tuple[Reach, Reach] = (Reach(), Reach())
    cost: int = 0
    """Multiplications for one cell of its output."""


class Stage(NamedTuple):
    """A picture that is kept, and the layers that lead to the next one: a convolution first."""

    channels: int
    size: tuple[int, int]
    """As far as the layers look at it."""
    interleaved: bool
    """Channels come last in memory."""
    layers: tuple[Layer, ...] = ()

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros kept around the picture."""
        return (self.layers[0].reach[0].padding, self.layers[0].reach[1].padding) if self.layers else (0, 0)

    @property
    def padded(self) -> tuple[int, int]:
        """Size with the zeros."""
        return self.size[0] + 2 * self.padding[0], self.size[1] + 2 * self.padding[1]

    def along(self, axis: int) -> tuple[Reach, ...]:
        """The layers' reaches along an axis."""
        return tuple(layer.reach[axis] for layer in self.layers)

    def cost(self, extent: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Multiplications of a window of this size on its way to the next picture, and its size there."""
        tall, wide = (route(self.along(axis), self.size[axis], extent[axis]) for axis in range(2))
        rows, columns = self.layers[0].reach
        cells = ((tall.margin - rows.span) // rows.stride + 1) * ((wide.margin - columns.span) // columns.stride + 1)
        return self.layers[0].cost * cells, (tall.extent, wide.extent)


class Plan(NamedTuple):
    """A model as a beginning that is done in full, stages, and an end that is done in full."""

    start: tuple[Step, ...]
    entry: int
    stages: tuple[Stage, ...]
    """The last one has no layers: it is what the end begins with."""
    exit: int
    end: tuple[Step, ...]
    result: int
    least: int = 1
    """The smallest window computed."""
    room: int = 1
    """Points that may be asked for at once."""

    def cost(self, side: int) -> int:
        """Multiplications on a row for a square of this side, up to the last picture."""
        total, extent = 0, (min(side, self.stages[0].size[0]), min(side, self.stages[0].size[1]))
        for stage in self.stages[:-1]:
            more, extent = stage.cost(extent)
            total += more
        return total


class Route(NamedTuple):
    """Along one axis, for a change of so many inputs of a stage that begins at each possible place."""

    outputs: Tensor
    """Where the outputs it can reach begin."""
    extent: int
    """How many these are."""
    inputs: Tensor
    """Where the inputs they look at begin, padding counted."""
    margin: int
    """How many these are."""


@cache
def route(reaches: tuple[Reach, ...], size: int, extent: int) -> Route:
    """Through layers of these reaches, from a picture of this size, of which `extent` inputs change."""
    start, reached = torch.arange(size), extent
    for reach in reaches:
        reached = min((reached + reach.span - 2) // reach.stride + 1, reach.size)
        start = ((start + reach.padding - reach.span + reach.stride) // reach.stride).clamp(0, reach.size - reached)
    inputs, margin = start, reached
    for reach in reversed(reaches):
        inputs, margin = inputs * reach.stride, (margin - 1) * reach.stride + reach.span
    return Route(start, reached, inputs, margin)


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return int(first), int(second)


def _layer(step: Step, value: int) -> Layer | None:
    """The step as a layer that takes tensor `value` and no other that depends on the input, if it can be one."""
    rest = (*step.args[1:], *step.kwargs.values())
    if step.reads != {value} or step.args[:1] != (At(value),) or At(value) in rest or not isinstance(step.out, At):
        return None
    if step.name in _EXACT or step.name in _SMOOTH:
        flat = all(part.numel() == 1 or part.shape[-2:] == (1, 1) for part in rest if isinstance(part, Tensor))
        flat = flat or step.name == "batch_norm"  # its numbers belong to channels
        call = partial(_again, step)
        return Layer(call if step.name in _EXACT else partial(_evenly, call)) if flat else None
    if step.name not in _ARGUMENTS:
        return None
    given = dict(zip(_ARGUMENTS[step.name], step.args, strict=False)) | step.kwargs
    if step.name == "conv2d":
        return _convolution(**given)
    if (
        given.get("ceil_mode")
        or given.get("return_indices")
        or _pair(given.get("padding", 0)) != (0, 0)
        or _pair(given.get("dilation", 1)) != (1, 1)
    ):
        return None
    spans = _pair(given["kernel_size"])
    strides = _pair(given.get("stride") or spans)
    rows, columns = (Reach(span, stride) for span, stride in zip(spans, strides, strict=True))
    return Layer(partial(_again, step), (rows, columns))


def _again(step: Step, patch: Tensor) -> Tensor:
    result: Tensor = step.call(patch, *step.args[1:], **step.kwargs)
    return result


def _evenly(call: Callable[[Tensor], Tensor], patch: Tensor) -> Tensor:
    """Elementwise, on whole vectors of the processor: what is left over would be computed in another way."""
    dense = patch.as_strided((patch.numel(),), (1,))
    return call(functional.pad(dense, (0, -len(dense) % _VECTOR)))[: len(dense)].as_strided(patch.shape, patch.stride())


def _convolution(
    input: At, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Layer:
    spread = _pair(dilation)
    spans = [spread[axis] * (weight.shape[2 + axis] - 1) + 1 for axis in range(2)]
    if padding == "same":
        padding = [span // 2 if span % 2 else -1 for span in spans]  # an even span is padded on one side more
    margins = (0, 0) if padding == "valid" else _pair(padding)
    rows, columns = (Reach(*each) for each in zip(spans, _pair(stride), margins, strict=True))
    call = partial(functional.conv2d, weight=weight, bias=bias, stride=stride, dilation=dilation, groups=groups)
    return Layer(call, (rows, columns), weight.numel())


def _whole(layer: Layer) -> bool:
    """No input is passed over, and no output looks at padding alone."""
    return all(reach.stride <= reach.span and 0 <= reach.padding < reach.span for reach in layer.reach)


def divided(tape: Tape) -> Plan | None:
    """Cut the tape where the longest chain of layers begins that starts with the first convolution, and where it ends."""
    first = next((at for at, step in enumerate(tape.steps) if step.name == "conv2d" and step.args and isinstance(step.args[0], At)), None)
    if first is None:
        return None
    chain: list[Layer] = []
    values = [tape.steps[first].args[0].number]
    for step in tape.steps[first:]:
        layer = _layer(step, values[-1])
        if layer is None or not _whole(layer):
            break
        chain.append(layer)
        values.append(step.out.number)
    begun = {0}.union(*(step.writes for step in tape.steps[:first]))
    while chain:  # what comes later may look at the end of the chain and at nothing before it
        later = set().union(*(step.reads for step in tape.steps[first + len(chain) :]))
        if not later & ((begun | set(values[:-1])) - {values[-1]}):
            break
        chain.pop()
        values.pop()
    layouts = [tape.layouts[value] for value in values]
    if any(shape[0] != tape.layouts[0][0][0] for shape, _ in layouts):
        return None  # what comes first there is not the rows
    stages = _stages(chain, layouts)
    start, end = tape.steps[:first], tape.steps[first + len(chain) :]
    return Plan(start, values[0], stages, values[-1], end, tape.result) if stages else None


def _stages(chain: Sequence[Layer], layouts: Sequence[tuple[torch.Size, tuple[int, ...]]]) -> tuple[Stage, ...]:
    """Layers as stages, none where a picture lies in memory in a way of its own."""
    stages: list[Stage] = []
    layers: tuple[Layer, ...] = ()
    size = (layouts[-1][0][2], layouts[-1][0][3]) if chain else (0, 0)
    for at in range(len(chain), -1, -1):
        shape, strides = layouts[at]
        if at < len(chain):
            reach = tuple(each._replace(size=used) for each, used in zip(chain[at].reach, size, strict=True))
            layers = (chain[at]._replace(reach=(reach[0], reach[1])), *layers)
            far = [(each.size - 1) * each.stride + each.span - each.padding for each in reach]
            size = (min(shape[2], far[0]), min(shape[3], far[1]))
        if at < len(chain) and not chain[at].cost:
            continue
        _, channels, height, width = shape
        plain = strides == (channels * height * width, height * width, width, 1)
        if not plain and strides != (channels * height * width, 1, width * channels, channels):
            return ()
        stages.insert(0, Stage(channels, size, not plain, layers))
        layers = ()
    return tuple(stages) if len(stages) > 1 else ()

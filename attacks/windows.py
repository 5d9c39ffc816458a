"""Passes that compute again only what a change of the input reaches.

Random search changes a small window of a picture and asks again. Through the convolutions and poolings a model begins with,
such a change reaches a window too: `Windows` keeps what they made of the point a row stood at, computes the window alone, and
hands the whole to the rest of the model. The scores are those of a full pass bit for bit; `plan` tries that first, since the
order in which a library adds up depends on the shapes of a call.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparring.attacks import random
from sparring.attacks.pictures import picture, window
from sparring.attacks.rows import pick
from sparring.attacks.tape import At, Step, Tape, play, record

_EXACT = frozenset({"add", "sub", "mul", "div", "relu", "relu6", "leaky_relu", "hardtanh", "clamp", "batch_norm", "dropout"})
_SMOOTH = frozenset({"elu", "selu", "celu", "silu", "sigmoid", "tanh", "softplus", "hardswish", "hardsigmoid"})
_ARGUMENTS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding", "ceil_mode"),
}
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Windows are rounded up to these squares, so that few shapes occur."""
_LEAST = (1, 3, 6)
"""Some kernels change their ways for very small outputs: smallest windows to be tried."""
_VECTOR = 128
_CALL = 10_000_000
"""Multiplications that take as long as sending another group of rows through the stages."""
_WORTH = 100_000
"""Multiplications saved on a row by a small window, below which the bookkeeping costs more."""


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
        tall, wide = (_route(self.along(axis), self.size[axis], extent[axis]) for axis in range(2))
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


class Patch(NamedTuple):
    """A window of one size in some rows of a kept picture, and what is to stand there."""

    slot: Tensor
    top: Tensor
    left: Tensor
    content: Tensor
    """(n, height, width, channels)."""

    def cells(self, size: tuple[int, int]) -> Tensor:
        """Where its cells lie in pictures of this size."""
        return _cells(self.slot, self.top, self.left, (self.content.shape[1], self.content.shape[2]), size)


@cache
def _offsets(extent: tuple[int, int], width: int) -> Tensor:
    return (torch.arange(extent[0])[:, None] * width + torch.arange(extent[1])).flatten()


def _cells(slot: Tensor, top: Tensor, left: Tensor, extent: tuple[int, int], size: tuple[int, int]) -> Tensor:
    first = (slot * size[0] + top) * size[1] + left
    return (first[:, None] + _offsets(extent, size[1])).flatten()


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
def _route(reaches: tuple[Reach, ...], size: int, extent: int) -> Route:
    start, reached = torch.arange(size), extent
    for reach in reaches:
        reached = min((reached + reach.span - 2) // reach.stride + 1, reach.size)
        start = ((start + reach.padding - reach.span + reach.stride) // reach.stride).clamp(0, reach.size - reached)
    inputs, margin = start, reached
    for reach in reversed(reaches):
        inputs, margin = inputs * reach.stride, (margin - 1) * reach.stride + reach.span
    return Route(start, reached, inputs, margin)


def _formed(content: Tensor, *, interleaved: bool) -> Tensor:
    """(n, height, width, channels) as (n, channels, height, width), laid out in memory as the model does."""
    image = content.permute(0, 3, 1, 2)
    # a single channel is contiguous either way, but kernels are chosen by the strides
    return image if interleaved else torch.empty(image.shape, dtype=image.dtype).copy_(image)


class Windows:
    """Scores of points that differ little from those asked before under the same name."""

    def __init__(self, plan: Plan, like: Tensor, tile: int) -> None:
        """`like` (B, …) is of the shape and type of the rows to come; at most `tile` of them are asked at once."""
        self._plan = plan
        self._x = like.new_zeros((tile, *like.shape[1:]))
        self._name = torch.zeros(tile, dtype=torch.int64)
        self._held = torch.zeros(tile, dtype=torch.bool)
        self._base = torch.zeros_like(self._entry())
        self._kept = [self._base.new_zeros((tile, *stage.padded, stage.channels)) for stage in plan.stages]
        self._best = self._base.new_zeros(tile)
        largest = max(self._base.shape[2:])
        sides = [*(side for side in _SIZES if plan.least <= side < largest), largest]
        self._sides = torch.tensor(sides)
        self._cost = {side: _cost(plan.stages, side) for side in sides}

    @torch.no_grad()
    def __call__(self, name: Tensor, x: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (B, K) of x (B, …); `name` (B,) int64 tells whose points they are, no two the same.

        The point of a row that is kept is the one of largest `worth(logits)` (B,): the next one should lie near it.
        """
        place, known = self._seat(name)
        self._x = self._x.index_copy(0, place, x)
        entry = self._entry()
        top, left, size = (part[place] for part in self._changed(entry))
        size = self._grouped(torch.where(known, size, max(self._base.shape[2:])))
        groups = [self._through(entry, place, top, left, size == extent, extent) for extent in sorted(set(size.tolist()))]
        last = self._plan.stages[-1]
        out = self._kept[-1].clone()
        for patches in groups:
            _write(out, last, patches[-1])
        image = _formed(out, interleaved=last.interleaved)
        logits = play(self._plan.end, {self._plan.exit: image}, self._plan.result)[place]
        value = worth(logits)
        better = (value > self._best[place]) | ~known
        self._best[place] = torch.where(better, value, self._best[place])
        if bool(better.any()):
            self._keep(groups, torch.zeros_like(self._held).index_fill_(0, place[better], True))
        return logits

    def _seat(self, name: Tensor) -> tuple[Tensor, Tensor]:
        """The slot of each name, and which had one before; who is not asked for gives up its slot."""
        same = (name[:, None] == self._name) & self._held
        known, taken = same.any(1), same.any(0)
        place = same.to(torch.uint8).argmax(1)
        place[~known] = torch.nonzero(~taken).flatten()[: int((~known).sum())]
        self._name[place] = name
        self._held = torch.zeros_like(self._held).index_fill_(0, place, True)
        return place, known

    def _entry(self) -> Tensor:
        """What the first convolution is given, as far as it is looked at."""
        height, width = self._plan.stages[0].size
        return play(self._plan.start, {0: self._x}, self._plan.entry)[:, :, :height, :width]

    def _keep(self, groups: list[list[Patch]], rows: Tensor) -> None:
        """What was computed becomes what is kept, in these rows (tile,) bool."""
        for patches in groups:
            chosen = torch.nonzero(rows[patches[0].slot]).flatten()
            parts = [pick(patch, chosen) for patch in patches] if len(chosen) else []
            for kept, stage, part in zip(self._kept, self._plan.stages, parts, strict=False):
                _write(kept, stage, part)
            if parts:
                self._base.permute(0, 2, 3, 1)[_place(parts[0])] = parts[0].content

    def _changed(self, entry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(tile,) each: upper left corner and side of the square that holds all that differs from what is kept."""
        apart = (entry - self._base).abs_().amax(1)
        first, extent = [], []
        for axis in (2, 1):
            marked = apart.amax(axis) != 0
            first.append(marked.to(torch.uint8).argmax(1))
            extent.append(torch.where(marked.any(1), marked.shape[1] - marked.to(torch.uint8).flip(1).argmax(1) - first[-1], 1))
        return first[0], first[1], self._sides[torch.bucketize(torch.maximum(*extent), self._sides)]

    def _grouped(self, side: Tensor) -> Tensor:
        """Windows of several sizes go through together, as large as the largest, where that costs less than another call."""
        found, count = torch.unique(side, return_counts=True)
        ends, together = [], 0
        for small, large, rows in zip(found.tolist(), found[1:].tolist(), count.tolist(), strict=False):
            together += rows
            if together * (self._cost[large] - self._cost[small]) > _CALL:
                ends.append(small)
                together = 0
        bounds = torch.tensor([*ends, int(found[-1])])
        return bounds[torch.bucketize(side, bounds)]

    def _through(self, entry: Tensor, place: Tensor, top: Tensor, left: Tensor, chosen: Tensor, extent: int) -> list[Patch]:
        """The windows of some rows, from the first picture to the last."""
        rows = torch.nonzero(chosen).flatten()
        rows = rows if len(rows) > 1 else rows.repeat(2)  # libraries compute a row that is alone in another way
        size = self._plan.stages[0].size
        tall, wide = min(extent, size[0]), min(extent, size[1])
        corner = top[rows].clamp(max=size[0] - tall), left[rows].clamp(max=size[1] - wide)
        patch = Patch(place[rows], *corner, entry.new_empty((len(rows), tall, wide, 1)))
        patches = [patch._replace(content=_look(entry, patch))]
        for stage, kept in zip(self._plan.stages[:-1], self._kept, strict=False):
            patches.append(_step(stage, kept, patches[-1]))
        return patches


def _place(patch: Patch) -> tuple[Tensor, Tensor, Tensor]:
    """Index of its cells in pictures (tile, height, width, channels)."""
    rows, columns = torch.arange(patch.content.shape[1]), torch.arange(patch.content.shape[2])
    return patch.slot[:, None, None], (patch.top[:, None] + rows)[:, :, None], (patch.left[:, None] + columns)[:, None, :]


def _look(picture: Tensor, patch: Patch) -> Tensor:
    """What stands in pictures (tile, channels, height, width) where the patch lies: (n, height, width, channels)."""
    return picture.permute(0, 2, 3, 1)[_place(patch)]


def _write(kept: Tensor, stage: Stage, patch: Patch) -> None:
    """Put a patch into kept pictures (tile, height, width, channels), inside the zeros around them."""
    inner = patch._replace(top=patch.top + stage.padding[0], left=patch.left + stage.padding[1])
    kept.view(-1, stage.channels).index_copy_(0, inner.cells(stage.padded), patch.content.reshape(-1, stage.channels))


def _step(stage: Stage, kept: Tensor, patch: Patch) -> Patch:
    """The patch in the next kept picture that follows from one in this."""
    rows, columns = (_route(stage.along(axis), stage.size[axis], patch.content.shape[1 + axis]) for axis in range(2))
    above, before, margin = rows.inputs[patch.top], columns.inputs[patch.left], (rows.margin, columns.margin)
    around = kept.view(-1, stage.channels).index_select(0, _cells(patch.slot, above, before, margin, stage.padded))
    top, left = patch.top + stage.padding[0] - above, patch.left + stage.padding[1] - before
    inner = Patch(torch.arange(len(top)), top, left, patch.content).cells(margin)
    around.index_copy_(0, inner, patch.content.reshape(-1, stage.channels))
    image = _formed(around.view(-1, *margin, stage.channels), interleaved=stage.interleaved)
    for layer in stage.layers:
        image = layer.call(image)
    return Patch(patch.slot, rows.outputs[patch.top], columns.outputs[patch.left], image.permute(0, 2, 3, 1))


def plan(model: nn.Module, like: Tensor, tile: int) -> Plan | None:
    """How to compute `model` by windows, on rows shaped as `like` (B, …); None where it cannot be, or is not worth it.

    On a CPU only. It is tried on random pictures: unless every score is that of a full pass bit for bit, there is no plan.
    """
    if like.device.type != "cpu":
        return None
    x = random.uniforms(random.keys(0, torch.arange(tile)), tuple(like.shape[1:])).to(like.dtype)
    tape = record(model, x)
    made = tape and _divided(tape)
    if made is None or _cost(made.stages, max(made.stages[0].size)) - _cost(made.stages, 3) < _WORTH:
        return None
    sizes = (made._replace(least=least) for least in _LEAST)
    return next((sized for sized in sizes if _agrees(sized, model, x)), None)


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
    return int(first), int(second)


def _layer(step: Step, value: int) -> Layer | None:
    """The step as a layer that takes tensor `value` and no other that depends on the input, if it can be one."""
    rest = (*step.args[1:], *step.kwargs.values())
    if step.reads != {value} or step.args[:1] != (At(value),) or At(value) in rest or not isinstance(step.out, At):
        return None
    if step.name in _EXACT or step.name in _SMOOTH:
        flat = all(part.dim() < 2 or part.shape[-2:] == (1, 1) for part in rest if isinstance(part, Tensor))
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
) -> Layer | None:
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


def _divided(tape: Tape) -> Plan | None:
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
    stages = _stages(chain, [tape.layouts[value] for value in values])
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


def _cost(stages: Sequence[Stage], side: int) -> int:
    """Multiplications on a row for a square of this side, up to the last picture."""
    total, extent = 0, (min(side, stages[0].size[0]), min(side, stages[0].size[1]))
    for stage in stages[:-1]:
        more, extent = stage.cost(extent)
        total += more
    return total


def _agrees(made: Plan, model: nn.Module, x: Tensor) -> bool:
    """Walk through random windows of every size, in all rows and in few, and compare with full passes."""
    seen, tile = picture(tuple(x.shape[1:])), len(x)
    rows, current = torch.arange(tile), x
    looks = [(rows[:count].flip(0), Windows(made, x, tile)) for count in (tile, 3, 1)]
    largest = max(seen.height, seen.width)
    for turn, side in enumerate([size for size in _SIZES for _ in range(2) if size < largest] + [largest]):
        draws = random.uniforms(random.keys(1 + turn, rows), (2 + x[0].numel(),))
        mixed = torch.tensor([side, 1, 2, 3])[rows % 4] if turn % 2 else torch.full_like(rows, side)
        size = torch.stack((mixed.clamp(max=seen.height), mixed.clamp(max=seen.width)), 1)
        inside = window(draws[:, :2], size, seen).inside(seen)
        asked = seen.close(torch.where(inside, seen.open(draws[:, 2:].reshape(x.shape)), seen.open(current)), x)
        with torch.no_grad():
            whole = model(asked)
        for some, look in looks:
            if not torch.equal(look(some, asked[some], lambda logits: logits[:, 0]), whole[some]):
                return False
        current = torch.where((rows % 3 == turn % 3).reshape(-1, *(1,) * (x.dim() - 1)), asked, current)
    return True

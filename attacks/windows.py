"""Passes that compute again only what a change of the input reaches.

Random search changes a small window of a picture and asks again. Through the convolutions and poolings a model begins with,
such a change reaches a window too: `Windows` keeps what they made of the point a row stood at, computes the window alone, and
hands the whole to the rest of the model. The scores are those of a full pass bit for bit; `plan` tries that first, since the
order in which a library adds up depends on the shapes of a call.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparring.attacks import random
from sparring.attacks.chain import Plan, Stage, divided, route
from sparring.attacks.pictures import picture, window
from sparring.attacks.rows import pick
from sparring.attacks.tape import play, record

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Windows are rounded up to these squares, so that few shapes occur."""
_LEAST = (1, 3, 6)
"""Some kernels change their ways for very small outputs: smallest windows to be tried."""
_CALL = 10_000_000
"""Multiplications that take as long as sending another group of rows through the stages."""
_ROOM = 4
"""Tiles of looks that go through at once, where that changes no bit: the bookkeeping costs as much for few as for many."""
_USUAL = 0.35
"""Side of the windows that most of a random search asks for, as a fraction of the picture's."""
_WORTH = 1_500_000
"""Multiplications saved on a row by such a window, below which the bookkeeping costs more than it saves."""


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


def _formed(content: Tensor, *, interleaved: bool) -> Tensor:
    """(n, height, width, channels) as (n, channels, height, width), laid out in memory as the model does."""
    image = content.permute(0, 3, 1, 2)
    # a single channel is contiguous either way, but kernels are chosen by the strides
    return image if interleaved else torch.empty(image.shape, dtype=image.dtype).copy_(image)


class Windows:
    """Scores of points that differ little from those asked before under the same name."""

    def __init__(self, plan: Plan, like: Tensor, tile: int, granule: int) -> None:
        """`like` (B, …) is of the shape and type of the rows to come; at most `tile` names, and `plan.room` points, are asked at once.

        What cannot be done by windows is done in multiples of `granule` rows.
        """
        self._plan, self._granule = plan, granule
        self._name = torch.zeros(tile, dtype=torch.int64)
        self._held = torch.zeros(tile, dtype=torch.bool)
        self._base = torch.zeros_like(self._entry(like.new_zeros((tile, *like.shape[1:]))))
        self._kept = [self._base.new_zeros((tile, *stage.padded, stage.channels)) for stage in plan.stages]
        self._best = self._base.new_zeros(tile)
        largest = max(self._base.shape[2:])
        sides = [*(side for side in _SIZES if plan.least <= side < largest), largest]
        self._sides = torch.tensor(sides)
        self._cost = {side: plan.cost(side) for side in sides}

    @torch.no_grad()
    def __call__(self, name: Tensor, x: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (B, K) of x (B, …); `name` (B,) int64 tells whose points they are, of which some may be one row's.

        The point of a row that is kept is the first of larger `worth(logits)` (B,) than the last: the next one should lie near it.
        """
        place, known = self._seat(name)
        entry = self._entry(x)
        top, left, size = self._changed(entry, place)
        size = self._grouped(torch.where(known, size, max(self._base.shape[2:])))
        groups = [self._through(entry, place, top, left, size == extent, extent) for extent in sorted(set(size.tolist()))]
        last = self._plan.stages[-1]
        out = self._kept[-1].index_select(0, torch.cat((place, place[:1].expand(-len(place) % self._granule))))
        for rows, patches in groups:
            _write(out, last, patches[-1]._replace(slot=rows))
        image = _formed(out, interleaved=last.interleaved)
        logits = play(self._plan.end, {self._plan.exit: image}, self._plan.result)[: len(x)]
        value = worth(logits)
        better = torch.nonzero((value > self._best[place]) | ~known).flatten()
        if len(better):
            first = torch.full_like(self._name, len(x)).scatter_reduce_(0, place[better], better, "amin")
            first = first[first < len(x)]
            self._best[place[first]] = value[first]
            self._keep(groups, torch.zeros_like(place, dtype=torch.bool).index_fill_(0, first, True))
        return logits

    def _seat(self, name: Tensor) -> tuple[Tensor, Tensor]:
        """The slot of each name, and which had one before; who is not asked for gives up its slot."""
        name, each = torch.unique(name, return_inverse=True)
        same = (name[:, None] == self._name) & self._held
        known, taken = same.any(1), same.any(0)
        place = same.to(torch.uint8).argmax(1)
        place[~known] = torch.nonzero(~taken).flatten()[: int((~known).sum())]
        self._name[place] = name
        self._held = torch.zeros_like(self._held).index_fill_(0, place, True)
        return place[each], known[each]

    def _entry(self, x: Tensor) -> Tensor:
        """What the first convolution is given, as far as it is looked at."""
        height, width = self._plan.stages[0].size
        return play(self._plan.start, {0: x}, self._plan.entry)[:, :, :height, :width]

    def _keep(self, groups: list[tuple[Tensor, list[Patch]]], better: Tensor) -> None:
        """What was computed of these rows (B,) bool becomes what is kept, no two in one slot."""
        for rows, patches in groups:
            chosen = torch.nonzero(better[rows]).flatten()
            parts = [pick(patch, chosen) for patch in patches] if len(chosen) else []
            for kept, stage, part in zip(self._kept, self._plan.stages, parts, strict=False):
                _write(kept, stage, part)
            if parts:
                self._base.permute(0, 2, 3, 1)[_place(parts[0])] = parts[0].content

    def _changed(self, entry: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) each: upper left corner and side of the square that holds all that differs from what is kept."""
        apart = (entry - self._base[place]).abs_().amax(1)
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

    def _through(self, entry: Tensor, place: Tensor, top: Tensor, left: Tensor, chosen: Tensor, extent: int) -> tuple[Tensor, list[Patch]]:
        """Some rows, and their windows from the first picture to the last."""
        rows = torch.nonzero(chosen).flatten()
        rows = rows if len(rows) > 1 else rows.repeat(2)  # libraries compute a row that is alone in another way
        size = self._plan.stages[0].size
        tall, wide = min(extent, size[0]), min(extent, size[1])
        corner = top[rows].clamp(max=size[0] - tall), left[rows].clamp(max=size[1] - wide)
        patch = Patch(place[rows], *corner, entry.new_empty((len(rows), tall, wide, 1)))
        patches = [patch._replace(content=_look(entry, patch._replace(slot=rows)))]
        for stage, kept in zip(self._plan.stages[:-1], self._kept, strict=False):
            patches.append(_step(stage, kept, patches[-1]))
        return rows, patches


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
    rows, columns = (route(stage.along(axis), stage.size[axis], patch.content.shape[1 + axis]) for axis in range(2))
    above, before, margin = rows.inputs[patch.top], columns.inputs[patch.left], (rows.margin, columns.margin)
    around = kept.view(-1, stage.channels).index_select(0, _cells(patch.slot, above, before, margin, stage.padded))
    top, left = patch.top + stage.padding[0] - above, patch.left + stage.padding[1] - before
    inner = Patch(torch.arange(len(top)), top, left, patch.content).cells(margin)
    around.index_copy_(0, inner, patch.content.reshape(-1, stage.channels))
    image = _formed(around.view(-1, *margin, stage.channels), interleaved=stage.interleaved)
    for layer in stage.layers:
        image = layer.call(image)
    return Patch(patch.slot, rows.outputs[patch.top], columns.outputs[patch.left], image.permute(0, 2, 3, 1))


def plan(model: nn.Module, like: Tensor, tile: int, granule: int) -> Plan | None:
    """How to compute `model` by windows, on rows shaped as `like` (B, …); None where it cannot be, or is not worth it.

    On a CPU only. It is tried on random pictures: unless every score is that of a full pass bit for bit, there is no plan.
    """
    if like.device.type != "cpu":
        return None
    x = random.uniforms(random.keys(0, torch.arange(tile)), tuple(like.shape[1:])).to(like.dtype)
    tape = record(model, x)
    made = tape and divided(tape)
    if made is None:
        return None
    side = max(made.stages[0].size)
    if made.cost(side) - made.cost(round(_USUAL * side)) < _WORTH:
        return None
    ways = (made._replace(least=least, room=room) for room in (_ROOM * tile, tile) for least in _LEAST)
    try:
        return next((way for way in ways if _agrees(way, model, x, granule)), None)
    except RuntimeError:  # a step that a model takes with the whole may be one that nobody can take with a part
        return None


def _agrees(made: Plan, model: nn.Module, x: Tensor, granule: int) -> bool:
    """Walk through random windows of every size, in up to as many points as there is room for, and compare with full passes.

    Every other step has windows of several sizes, in a tile of points at most.
    """
    seen, tile, current = picture(tuple(x.shape[1:])), len(x), x
    looks = [(count, Windows(made, x, tile, granule)) for count in (made.room, 3, 1)]
    largest = max(seen.height, seen.width)
    sides = [size for size in _SIZES for _ in range(2) if made.least <= size < largest]
    for turn, side in enumerate([*sides, largest]):
        points = torch.arange(tile if turn % 2 else made.room - 29 * turn % (made.room - tile + 1))
        draws = random.uniforms(random.keys(1 + turn, points), (2 + x[0].numel(),))
        mixed = torch.tensor([side, 1, 2, 3])[points % 4] if turn % 2 else torch.full_like(points, side)
        size = torch.stack((mixed.clamp(max=seen.height), mixed.clamp(max=seen.width)), 1)
        name = points % tile
        before = current[name]
        inside = window(draws[:, :2], size, seen).inside(seen)
        asked = seen.close(torch.where(inside, seen.open(draws[:, 2:].reshape(before.shape)), seen.open(before)), before)
        with torch.no_grad():
            whole = torch.cat([model(part) for part in torch.split(asked, tile)])
        for count, look in looks:
            some = points[:count].flip(0)
            if not torch.equal(look(name[some], asked[some], lambda logits: logits[:, 0]), whole[some]):
                return False
        current = torch.where((points[:tile] % 3 == turn % 3).reshape(-1, *(1,) * (x.dim() - 1)), asked[:tile], current)
    return True

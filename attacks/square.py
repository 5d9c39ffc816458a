"""Square attack (Andriushchenko et al. 2019, arXiv 1912.00049): random search by windows, kept where the loss grows.

Every row has its own windows and signs. A window may end at the last row and column of the picture, and its size follows the
paper's schedule, stretched to the number of queries; in a picture too narrow for a square it is a rectangle of that area.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import Near, ScoreAccess, near
from sparring.attacks.engine import Patience, Probe, Rule, Start, climb
from sparring.attacks.losses import LOSSES, Loss
from sparring.attacks.norms import NORMS, Norm
from sparring.attacks.pictures import Picture, Window, picture, window
from sparring.attacks.problem import Attack, Outcome, Point, Problem
from sparring.attacks.rows import per_row, where
from sparring.contract import attacks as contract

_START, _MOVE = 1, 2  # streams of randomness
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_TILES, _TINY, _NOTHING = 5, 1e-12, 1e-5


def sides(share: float, height: int, width: int, least: int) -> list[tuple[int, int]]:
    """(height, width) of the window after each number of halvings; `least` 3 makes sides odd, as the l2 search wants them."""
    table = []
    for halvings in range(len(_HALVINGS) + 1):
        area = share * height * width / 2**halvings
        side = max(round(math.sqrt(area)), least)
        side += least > 1 and side % 2 == 0
        high = max(side, round(area / width)) if side > width else side
        wide = max(side, round(area / height)) if side > height else side
        table.append((min(high, height), min(wide, width)))
    return table


class Best(NamedTuple):
    """What a row carries from look to look: its best point, and how good it is."""

    x: Tensor
    loss: Tensor


Propose = Callable[[Problem, Tensor, Tensor, Tensor], Tensor]
"""(problem, best (B, …), key (B,), halvings (B,)) -> the next point to look at."""


def search(propose: Propose, queries: int) -> Rule:
    """Keep the better of best point and proposal, and propose again from there."""
    marks = torch.tensor(_HALVINGS)

    def init(problem: Problem, x: Tensor) -> Best:
        return Best(x, x.new_full((len(x),), float("-inf")))

    def onward(state: Best, problem: Problem, t: Tensor) -> Tensor:
        halvings = torch.bucketize(t * 10_000 // queries, marks.to(t.device))
        return propose(problem, state.x, random.fork(random.fork(problem.key, _MOVE), t), halvings)

    def better(point: Point, state: Best) -> Tensor:
        return point.loss > state.loss

    def step(point: Point, state: Best, problem: Problem, t: Tensor) -> tuple[Tensor, Best]:
        improved = better(point, state)
        best = Best(where(improved, point.x, state.x), torch.where(improved, point.loss, state.loss))
        return onward(best, problem, t), best

    return Rule(init, step, patience=Patience(onward, better))


def stripes(seen: Picture) -> Start:
    """Begin in a corner of the box: each column of each channel at its upper or lower edge."""

    def start(problem: Problem) -> Tensor:
        draws = random.uniforms(random.fork(problem.key, _START), (seen.channels, 1, seen.width))
        low, high = seen.open(problem.ball.low), seen.open(problem.ball.high)
        return seen.close(torch.where(draws < 0.5, low, high), problem.x)

    return start


def patches(seen: Picture, share: float) -> Propose:
    """One window goes to an edge of the box, channel by channel; signs that would change nothing are turned round."""
    table = torch.tensor(sides(share, seen.height, seen.width, 1))

    def propose(problem: Problem, best: Tensor, key: Tensor, halvings: Tensor) -> Tensor:
        draws = random.uniforms(key, (2 + seen.channels,))
        row, y, x = window(draws[:, :2], table.to(key.device)[halvings], seen).inside(seen).squeeze(1).nonzero(as_tuple=True)
        at = (row, slice(None), y, x)
        low, high, moved = seen.open(problem.ball.low)[at], seen.open(problem.ball.high)[at], seen.open(best.clone())
        down = draws[:, 2:] < 0.5
        changed = (torch.where(down[row], low, high) != moved[at]).any(1)
        idle = torch.ones_like(halvings, dtype=torch.bool).index_fill_(0, row[changed], False)
        moved[at] = torch.where((down ^ idle[:, None])[row], low, high)
        return seen.close(moved, best)

    return propose


def bump(height: int, width: int, *, across: bool) -> Tensor:
    """(height, width) of norm 1: two hills of opposite sign (eq. 3), one above the other, or side by side where `across`."""
    if across or height == 1:
        return _hills(width, height).T
    return _hills(height, width)


def _hills(height: int, width: int) -> Tensor:
    first = height // 2
    shape = torch.cat((_hill(first, width), -_hill(height - first, width)))
    return shape / shape.square().sum().sqrt()


def _hill(height: int, width: int) -> Tensor:
    """Each entry is the sum of 1/j^2 from its distance to the middle, plus one, to that of the farthest side."""
    if not height:
        return torch.zeros(0, width)
    rows, columns = (torch.arange(size) - size // 2 for size in (height, width))
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2).float() ** 2
    hill = terms.flip(0).cumsum(0).flip(0)[distance]
    return hill / hill.square().sum().sqrt()


def tiles(seen: Picture) -> Start:
    """Begin with a grid of five by five bumps of equal weight, each turned and signed by chance."""
    rows, columns = (torch.arange(size) * _TILES // size for size in (seen.height, seen.width))
    tile = rows[:, None] * _TILES + columns[None, :]
    both = torch.zeros(2, seen.height, seen.width)
    for place in range(_TILES**2):
        at = tile == place
        if not bool(at.any()):
            continue
        size = int(at.any(1).sum()), int(at.any(0).sum())
        both[:, at] = torch.stack([bump(*size, across=bool(way)).flatten() for way in range(2)])

    def start(problem: Problem) -> Tensor:
        key, x = random.fork(problem.key, _START), problem.x
        turned = random.uniforms(random.fork(key, 0), (1, _TILES**2))[:, :, tile] < 0.5
        down = random.uniforms(random.fork(key, 1), (seen.channels, _TILES**2))[:, :, tile] < 0.5
        upright, across = both.to(x.device)
        move = torch.where(turned, across, upright) * torch.where(down, -1.0, 1.0)
        wide = seen.close(move, x)
        length = problem.ball.norm.measure(wide.double())
        return problem.ball.project(x + wide * per_row((problem.ball.eps / length).to(x.dtype), x))

    return start


class Mass(NamedTuple):
    """What a norm adds up over entries, and its inverse: squares and square roots, or sizes as they are."""

    of: Callable[[Tensor], Tensor]
    length: Callable[[Tensor], Tensor]


SQUARES = Mass(torch.square, torch.sqrt)
SIZES = Mass(torch.abs, lambda total: total)


def masses(seen: Picture, share: float, mass: Mass = SQUARES) -> Propose:
    """Algorithm 3: what one window holds, and what of eps is unused, goes to another one and takes the shape of a bump there.

    In l1 likewise, with sizes where l2 has squares (Croce, Hein 2021, 2103.01208, section 5).
    """
    sizes = sides(share, seen.height, seen.width, 3)
    table, (high, wide) = torch.tensor(sizes), sizes[0]
    bumps = torch.zeros(len(sizes), 2, high, wide)
    for at, (height, width) in enumerate(sizes):
        for way in range(2):
            one = bump(height, width, across=bool(way))
            bumps[at, way, :height, :width] = one / mass.length(mass.of(one).sum())

    def shaped(place: Window, halvings: Tensor, way: Tensor) -> Tensor:
        row, column = seen.axes(way)
        rows = (row - place.top[:, None]).clamp(0, high - 1)
        columns = (column - place.left[:, None]).clamp(0, wide - 1)
        at = (halvings * 2 + way)[:, None, None] * high * wide + rows[:, :, None] * wide + columns[:, None, :]
        return bumps.to(way.device).flatten()[at][:, None]

    def propose(problem: Problem, best: Tensor, key: Tensor, halvings: Tensor) -> Tensor:
        draws, size = random.uniforms(key, (5 + seen.channels,)), table.to(key.device)[halvings]
        place = window(draws[:, :2], size, seen)
        inside, source = place.inside(seen), window(draws[:, 2:4], size, seen).inside(seen)
        old = seen.open(best - problem.x)
        held = mass.of(old)
        unused = (mass.of(per_row(problem.ball.eps.to(old.dtype), old)) - held.sum((1, 2, 3), keepdim=True)).clamp(min=0)
        due = mass.length((held * (inside | source)).sum((2, 3), keepdim=True) + unused / seen.channels)
        signs = torch.where(draws[:, 5:] < 0.5, -1.0, 1.0)[:, :, None, None]
        here = mass.length((held * inside).sum((2, 3), keepdim=True))
        added = shaped(place, halvings, (draws[:, 4] < 0.5).long()) * signs
        fresh = (old / here.clamp(min=_TINY) + added) * inside
        length = mass.length(mass.of(fresh).sum((2, 3), keepdim=True))
        cancelled = length < _NOTHING  # the window held the same bump turned round; the mass must not vanish with it
        shape = torch.where(cancelled, added, fresh / torch.where(cancelled, 1.0, length))
        moved = torch.where(inside, shape * due, old * ~source)
        return problem.ball.project(problem.x + seen.close(moved, best))

    return propose


def nearby(look: Near, loss: Loss) -> Probe[ScoreAccess]:
    """Looks at the scores, with a memory of where each row stood."""

    def probe(target: ScoreAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        assert problem.name is not None
        logits = look(problem.name, x, lambda logits: loss(logits, problem.goal))
        return Point(x, loss(logits, problem.goal), problem.goal.margin(logits))

    return probe


def square(spec: contract.Square) -> Attack[ScoreAccess]:
    """The margin is climbed; with classes to reach it is the cross-entropy."""
    kinds: dict[Norm, tuple[Callable[[Picture], Start], Callable[[Picture, float], Propose]]] = {
        NORMS["linf"]: (stripes, patches),
        NORMS["l2"]: (tiles, masses),
        NORMS["l1"]: (tiles, partial(masses, mass=SIZES)),
    }

    def attack(target: ScoreAccess, problem: Problem) -> Outcome:
        seen, (begin, propose) = picture(tuple(problem.x.shape[1:])), kinds[problem.ball.norm]
        probe = nearby(near(target, problem.x), LOSSES["ce" if problem.goal.targeted else "margin"])
        rule = search(propose(seen, spec.share), spec.queries)
        return climb(probe, rule, spec.queries, begin(seen), tries=spec.restarts)(target, problem)

    return attack

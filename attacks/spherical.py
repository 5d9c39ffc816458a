"""The boundary attack (Brendel, Rauber, Bethge 2017, arXiv 1712.04248, algorithm 1)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess
from sparring.attacks.norms import Ball
from sparring.attacks.norms.l2 import unit
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.rows import per_row, pick
from sparring.attacks.walks import Trail, begin
from sparring.contract import attacks as contract

_STEP = 2  # a stream of randomness
_EVERY = 10
_CONVERGED = 1e-7


class Rate(NamedTuple):
    """How a step follows its successes: it grows with each and shrinks with each failure, and stands where `share` of them succeed."""

    share: float
    gain: float

    def followed(self, step: Tensor, reached: Tensor) -> Tensor:
        """The steps (N,) after these successes (N,)."""
        return step * torch.where(reached, math.exp(self.gain * (1 - self.share)), math.exp(-self.gain * self.share))


_ROUND, _INWARD = Rate(0.3, 0.25), Rate(0.2, 0.1)


class Walk(NamedTuple):
    """The rows that are under way."""

    rows: Tensor
    space: Ball
    around: Tensor
    """(N,) float64: the step along the sphere, as a fraction of the distance."""
    inward: Tensor
    """(N,) float64: the step toward the clean row, likewise."""
    key: Tensor


def spherical(spec: contract.Boundary) -> Attack[DecisionAccess]:
    """A step round the clean row and one toward it make a proposal, which is kept where it succeeds; one in ten tests the first alone.

    Both steps follow their successes one by one, where the paper's code waits for the last 100 and 30.
    """

    def attack(target: DecisionAccess, problem: Problem) -> Outcome:
        trail = Trail(target, problem, spec.queries)
        begin(trail, spec.starts)
        rows = trail.walking()
        around, inward = (torch.full_like(trail.distance[rows], step) for step in (spec.spherical, spec.source))
        walk, t = Walk(rows, pick(trail.space, rows), around, inward, random.fork(problem.key[rows], _STEP)), 0
        while len(walk.rows):
            walk, t = _stepped(trail, walk, t), t + 1
            going = trail.open(walk.rows) & (walk.inward > _CONVERGED)
            if not bool(going.all()):
                walk = pick(walk, going)
        return trail.outcome()

    return attack


def _stepped(trail: Trail, walk: Walk, t: int) -> Walk:
    x, distance = trail.x[walk.rows], trail.distance[walk.rows]
    beside, nearer = _proposed(walk, x, distance, random.fork(walk.key, t))
    inward, around = _INWARD.followed(walk.inward, trail.ask(walk.rows, nearer)), walk.around
    if t % _EVERY == _EVERY - 1:
        at = torch.nonzero(trail.open(walk.rows)).flatten()
        grown = around.index_copy(0, at, _ROUND.followed(around[at], trail.ask(walk.rows[at], beside[at])))
        inward, around = inward * grown / around, grown
    return walk._replace(around=around, inward=inward)


def _proposed(walk: Walk, x: Tensor, distance: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """(N, …) twice: x moved along the sphere about the clean row, and from there inward."""
    space, around, inward = walk.space, walk.around, walk.inward
    away = (x - space.centre) / per_row(distance.to(x.dtype), x)
    drawn = random.normals(key, tuple(x.shape[1:]))
    tangent = unit(drawn - per_row((drawn * away).flatten(1).sum(1), drawn) * away)
    turned = (away + per_row(around.to(x.dtype), x) * tangent) * per_row((distance / (1 + around.square()).sqrt()).to(x.dtype), x)
    beside = (space.centre + turned).clamp(space.low, space.high)
    reach = space.distance(beside)
    kept = 1 - ((inward - 1) * distance + reach).clamp(min=0) / reach
    nearer = space.centre + per_row(kept.to(x.dtype), x) * (beside - space.centre)
    return beside, nearer.clamp(space.low, space.high)

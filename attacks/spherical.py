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
from sparring.attacks.walks import Trail, approach, begin
from sparring.contract import attacks as contract

_STEP = 2  # a stream of randomness
_PRECISION = 1e-3
_EVERY = 10
_CONVERGED = 1e-7


class Rate(NamedTuple):
    """How a step follows its successes: it grows with each and shrinks with each failure, and stands where `share` of them succeed."""

    share: float
    gain: float

    def followed(self, step: Tensor, reached: Tensor) -> Tensor:
        """The steps (N,) after these successes (N,)."""
        return step * torch.where(reached, math.exp(self.gain * (1 - self.share)), math.exp(-self.gain * self.share))


_ROUND, _INWARD = Rate(0.4, 0.25), Rate(0.2, 0.1)


def spherical(spec: contract.Boundary) -> Attack[DecisionAccess]:
    """A step round the clean row and one toward it make a proposal, which is kept where it succeeds; one in ten tests the first alone.

    Both steps follow their successes one by one, where the paper's code waits for the last 100 and 30.
    """

    def attack(target: DecisionAccess, problem: Problem) -> Outcome:
        trail = Trail(target, problem, spec.queries)
        begin(trail, spec.starts)
        rows = trail.walking()
        approach(trail, rows, trail.x[rows], _PRECISION)
        around, inward = (torch.full_like(trail.distance, step) for step in (spec.spherical, spec.source))
        t = 0
        while len(rows := rows[trail.open(rows) & (inward[rows] > _CONVERGED)]):
            t += 1
            key = random.fork(random.fork(problem.key[rows], _STEP), t)
            beside, nearer = _proposed(pick(trail.space, rows), trail.x[rows], trail.distance[rows], around[rows], inward[rows], key)
            reached = trail.ask(rows, nearer)
            inward[rows] = _INWARD.followed(inward[rows], reached)
            if t % _EVERY == 0:
                at = torch.nonzero(trail.open(rows)).flatten()
                tested = trail.ask(rows[at], beside[at])
                grown = _ROUND.followed(around[rows[at]], tested)
                inward[rows[at]] *= grown / around[rows[at]]
                around[rows[at]] = grown
        return trail.outcome()

    return attack


def _proposed(space: Ball, x: Tensor, distance: Tensor, around: Tensor, inward: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """(N, …) twice: x moved along the sphere about the clean row, and from there inward; both steps in parts of the distance."""
    away = (x - space.centre) / per_row(distance.to(x.dtype), x)
    drawn = random.normals(key, tuple(x.shape[1:]))
    tangent = unit(drawn - per_row((drawn * away).flatten(1).sum(1), drawn) * away)
    turned = (away + per_row(around.to(x.dtype), x) * tangent) * per_row((distance / (1 + around.square()).sqrt()).to(x.dtype), x)
    beside = (space.centre + turned).clamp(space.low, space.high)
    reach = space.distance(beside)
    kept = 1 - ((inward - 1) * distance + reach).clamp(min=0) / reach
    nearer = space.centre + per_row(kept.to(x.dtype), x) * (beside - space.centre)
    return beside, nearer.clamp(space.low, space.high)

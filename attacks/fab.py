"""Fast adaptive boundary (Croce, Hein 2019, arXiv 1907.02044, algorithm 1), and its targeted form FAB-T."""

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, nearest, scattered, settled
from sparring.attacks.engine import Rule, climb, closest, knowing
from sparring.attacks.losses import difference
from sparring.attacks.norms import Ball
from sparring.attacks.parts import Nothing, aims, backprop, centre, nothing, toward
from sparring.attacks.problem import Attack, Outcome, Point, Problem
from sparring.attacks.rows import join, per_row, where
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_ALL = 1 << 30


def fab(spec: contract.FAB) -> Attack[GradientAccess]:
    """Toward the nearest of all boundaries, or with targets toward each one's: first every target once, then with the next restart."""

    def untargeted(target: GradientAccess, problem: Problem) -> Outcome:
        return climb(nearest(_ALL), boundary(spec, 1), spec.steps, centre, closest, tries=spec.restarts)(target, problem)

    def targeted(target: GradientAccess, problem: Problem) -> Outcome:
        targets = max(aims(spec.targets, problem), 1)
        probe, rule = backprop(difference, DOUBT), boundary(spec, targets)
        return climb(probe, rule, spec.steps, centre, closest, tries=spec.restarts * targets, vary=toward(targets))(target, problem)

    return settled(knowing(targeted) if spec.targets else untargeted, tighten=True)


def boundary(spec: contract.FAB, targets: int) -> Rule:
    """Both the point and the clean row are projected on the linearised boundary, and the next point is a mean of the two.

    A success moves back toward the clean row first. The slope found at the success serves there too: as the boundary runs near
    the success and not near the point it moves back to, another look would cost much and say little. After the first
    of `targets` tries per restart a run begins at random.
    """
    stretch, backward = value(spec.overshoot), spec.backward

    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        assert point.grad is not None
        ball, x0 = problem.ball, problem.x
        crossed = (point.margin > 0) | (point.loss > 0)
        base = where(crossed, x0 + backward * (point.x - x0), point.x)
        near, far = _planes(point, base, ball)
        distance = ball.norm.measure(near.double() - base.double())
        reach = ball.norm.measure(far.double() - x0.double())
        both = distance + reach
        pull = torch.where(both > 0, distance / both, 0.0).clamp(max=spec.pull)
        weight = per_row(pull, x0).to(x0.dtype)
        ahead = (1 - weight) * (base + stretch * (near - base)) + weight * (x0 + stretch * (far - x0))
        moved = ahead.clamp(ball.low, ball.high)
        again = (t == 0) & (problem.attempt >= targets)
        return (where(again, scattered(problem, reach), moved) if bool(again.any()) else moved), state

    return Rule(nothing, step)


def _planes(point: Point, base: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    """The points of the linearised boundary nearest to `base` (B, …) and to the clean row, both from one pass."""
    assert point.grad is not None
    start = torch.cat((base, ball.centre))
    slope = torch.cat((point.grad, point.grad))
    gone = (start - torch.cat((point.x, point.x))).double()
    gap = -torch.cat((point.loss, point.loss)).double() - (slope.double() * gone).flatten(1).sum(1)
    near, far = join(ball, ball).onto(start, slope, gap).chunk(2)
    return near, far

"""Jacobian-based saliency map attack (Papernot et al. 2015, arXiv 1511.07528, algorithm 3), one entry at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, settled
from sparring.attacks.engine import Probe, Rule, climb, closest, knowing
from sparring.attacks.losses import ce
from sparring.attacks.parts import aims, centre, toward
from sparring.attacks.problem import Attack, Goal, Outcome, Point, Problem
from sparring.attacks.rows import where
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_FREE = 1.0
"""How far an entry moves that nothing limits, if it is not told."""


class Walk(NamedTuple):
    """What a row carries from step to step."""

    over: Tensor
    """(B,) bool: the boundary was crossed, or no entry is left that would help."""


def jsma(spec: contract.JSMA) -> Attack[GradientAccess]:
    """Step by step the entry of the largest saliency goes to its limit, up or down, until the class aimed at is reached.

    Where the paper aims at one class, every one of `targets` is aimed at in turn, those that score highest first. Where it
    has pairs of entries go up together, or down, each goes alone and whichever way helps, so that no more change than need.
    """

    def attack(target: GradientAccess, problem: Problem) -> Outcome:
        probe, rule = _PROBES[spec.saliency], saturate(None if spec.theta is None else value(spec.theta))
        if problem.goal.targeted:
            return climb(probe, rule, spec.steps, centre, closest)(target, problem)
        targets = max(aims(spec.targets, problem), 1)
        return climb(probe, rule, spec.steps, centre, closest, tries=targets, vary=toward(targets))(target, problem)

    return settled(knowing(attack))


def saturate(theta: float | None) -> Rule:
    """Moves one entry by `theta`, or to its limit: the one that gains most by its move. None turns back."""

    def step(point: Point, state: Walk, problem: Problem, t: Tensor) -> tuple[Tensor, Walk]:
        assert point.grad is not None
        ball, grad = problem.ball, point.grad
        room = torch.where(grad > 0, ball.high - point.x, point.x - ball.low)
        reach = torch.where(room.isfinite(), room, _FREE) if theta is None else room.clamp(max=theta)
        back = grad * (point.x - problem.x) < 0
        chosen = ball.steepest(torch.where(back, 0.0, grad * reach), point.x)
        moved = torch.where(chosen != 0, point.x + chosen * reach, point.x).clamp(ball.low, ball.high)
        return moved, Walk((point.margin > 0) | (chosen == 0).flatten(1).all(1))

    return Rule(lambda problem, x: Walk(torch.zeros_like(problem.attempt, dtype=torch.bool)), step, over=lambda state: state.over)


def _aimed(problem: Problem) -> Goal:
    goal = problem.goal
    return Goal(goal.labels if goal.toward is None else goal.toward, targeted=True)


def _point(problem: Problem, x: Tensor, logits: Tensor, loss: Tensor, grad: Tensor | None, looks: int) -> Point:
    return Point(x, loss, problem.goal.margin(logits) - DOUBT * logits.amax(1).abs(), grad, looks)


def _by_logits(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
    """Looks at the logit aimed at and at the sum of the others (eq. 8): saliency is the geometric mean of its rise and their fall.

    An entry that does not do both has none; where none does, the rise alone counts. Two looks, as there are two slopes.
    """
    aim = _aimed(problem).labels[:, None]
    if not slope:
        logits = target.logits(x)
        return _point(problem, x, logits, logits.gather(1, aim).squeeze(1), None, 1)
    logits, loss, rise = target.slope(lambda z: z.gather(1, aim).squeeze(1), x)
    _, _, others = target.slope(lambda z: z.scatter(1, aim, 0.0).sum(1), x)
    helps = rise.sign() * others.sign() < 0
    both = torch.where(helps, rise.sign() * rise.abs().sqrt() * others.abs().sqrt(), 0.0)
    grad = where(helps.flatten(1).any(1), both, rise)
    return _point(problem, x, logits, loss, grad, 2)


def _by_softmax(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
    """Looks at probabilities: as they sum to one, what one gains the others lose, and saliency is the slope of the one aimed at."""
    goal = _aimed(problem)
    if not slope:
        logits = target.logits(x)
        return _point(problem, x, logits, ce(logits, goal), None, 1)
    logits, loss, grad = target.slope(lambda z: ce(z, goal), x)
    return _point(problem, x, logits, loss, grad, 1)


_PROBES: dict[str, Probe[GradientAccess]] = {"logits": _by_logits, "softmax": _by_softmax}

"""Carlini-Wagner in linf (2016, arXiv 1608.04644, section VI-C)."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import weights
from sparring.attacks.access import GradientAccess
from sparring.attacks.adam import Adam, adam, descend
from sparring.attacks.boundary import DOUBT, ahead, settled
from sparring.attacks.engine import Rule, climb
from sparring.attacks.losses import margin
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import choose, per_row, where
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_CLOSE = 0.99
"""A row is done when the limit that failed comes so near to the distance reached, as a fraction of it."""


class Squeeze(NamedTuple):
    """What a row carries from step to step. Lengths and weights are (B,) float64."""

    adam: Adam
    start: Tensor
    """The nearest success; the clean row until there is one."""
    nearest: Tensor
    """Its distance."""
    tau: Tensor
    """What no entry should differ by more than."""
    failed: Tensor
    """The largest tau at which the heaviest weight failed."""
    over: Tensor
    """(B,) bool: there is no room left between what failed and what was reached."""
    weight: Tensor
    pace: Tensor
    """Step size of Adam."""
    step: Tensor
    """(B,) int64: of this round."""
    rounds: Tensor
    """(B,) int64: those that are done."""


def cw_linf(spec: contract.CWLinf) -> Attack[GradientAccess]:
    """Adam on sum max(|x - x0| - tau, 0) + weight * max(confidence - margin, 0), in rounds, each from the nearest success.

    A success well inside what was reached before ends its round, and tau falls to a fraction of its distance. After a round in vain
    the weight doubles; at the heaviest, tau goes half the way back to the distance reached. The first tau is eps.

    Bounds are kept by clipping, and not in tanh space, where an entry at a limit can hardly move. Steps are in units of the distance
    reached, of that to the linearised boundary before, where the paper's are of 0.005 for pictures in [0, 1].
    """
    confidence = value(spec.confidence)

    def init(problem: Problem, x: Tensor) -> Squeeze:
        eps, none = problem.ball.eps, torch.zeros_like(problem.attempt)
        length, never = torch.zeros_like(eps), torch.full_like(eps, float("inf"))
        return Squeeze(adam(x), x, never, eps, length, none > 0, torch.full_like(eps, value(spec.weight)), length, none, none)

    def step(point: Point, state: Squeeze, problem: Problem, t: Tensor) -> tuple[Tensor, Squeeze]:
        distance = problem.ball.distance(point.x)
        reached = (point.margin > confidence) & (distance < torch.minimum((state.tau + state.nearest) / 2, state.nearest))
        first = ahead(point, problem).double() - point.x.double() if bool((t == 0).any()) else None
        pace = state.pace if first is None else torch.where(t == 0, spec.rate * problem.ball.norm.measure(first), state.pace)
        moved = descend(state.adam, _slope(point, state, problem, confidence), per_row(pace, point.x).to(point.x.dtype))
        space = problem.ball.freed()
        moved = moved._replace(point=moved.point.clamp(space.low, space.high))
        done = reached | (state.step >= spec.steps - 1)
        start, nearest = where(reached, point.x, state.start), torch.where(reached, distance, state.nearest)
        state = state._replace(adam=moved, start=start, nearest=nearest, pace=pace, step=state.step + 1)
        if bool(done.any()):
            state = choose(done, _next(state, reached, problem, spec), state)
        return state.adam.point, state

    rule = Rule(init, step, over=lambda state: state.over | (state.rounds >= spec.rounds))
    attack = climb(backprop(margin, DOUBT), rule, spec.rounds * spec.steps - 1, centre, weights.passed(confidence))
    return settled(attack, tighten=not confidence)


def _slope(point: Point, state: Squeeze, problem: Problem, confidence: float) -> Tensor:
    """The slope (B, …) of what is minimised."""
    assert point.grad is not None
    gone = point.x - problem.x
    outside = gone.double().abs() > per_row(state.tau, gone)
    weight = torch.where(point.loss < confidence, state.weight, 0.0).to(gone.dtype)
    return torch.where(outside, gone.sign(), 0.0) - per_row(weight, gone) * point.grad


def _next(state: Squeeze, reached: Tensor, problem: Problem, spec: contract.CWLinf) -> Squeeze:
    """The next round, from the nearest success. Without any the steps double, and not the weight."""
    lost = state.nearest == float("inf")
    vain = ~reached & ~lost & (2 * state.weight > value(spec.heaviest))
    failed = torch.where(vain, torch.maximum(state.failed, state.tau), state.failed)
    tau = torch.maximum(spec.shrink * state.nearest, (failed + state.nearest) / 2)
    kept = reached | vain | lost
    pace = torch.where(reached, spec.rate * state.nearest, torch.where(lost, 2 * state.pace, state.pace))
    return state._replace(
        adam=adam(state.start),
        tau=torch.where(kept, torch.minimum(tau, problem.ball.eps), state.tau),
        failed=failed,
        over=failed >= _CLOSE * state.nearest,
        weight=torch.where(kept, state.weight, 2 * state.weight),
        pace=pace,
        step=torch.zeros_like(state.step),
        rounds=state.rounds + 1,
    )

"""Elastic net (Chen et al. 2017, arXiv 1709.04114, algorithm 1)."""

from typing import NamedTuple

from torch import Tensor

from sparring.attacks import weights
from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, settled
from sparring.attacks.engine import Rule, climb
from sparring.attacks.losses import margin
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import choose, per_row, where
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_INERTIA = 3


class Shrinkage(NamedTuple):
    """What a row carries from step to step."""

    x: Tensor
    """The point before momentum."""
    weight: weights.Weight


def ead(spec: contract.EAD) -> Attack[GradientAccess]:
    """Shrinkage on ||x - x0||_2^2 + beta ||x - x0||_1 + weight * max(confidence - margin, 0), with Nesterov's momentum (FISTA).

    A step goes down the slope of the smooth part, and takes beta off the change of every entry. As steps get smaller and beta does
    not, a search ends among the points of few changes: it is never cut short. The weight is searched per row as in C&W. The points
    looked at are those ahead, where slopes are taken; the paper looks at both.
    """
    confidence, beta, rate = value(spec.confidence), value(spec.beta), value(spec.rate)

    def init(problem: Problem, x: Tensor) -> Shrinkage:
        return Shrinkage(x, weights.first(problem, value(spec.weight)))

    def step(point: Point, state: Shrinkage, problem: Problem, t: Tensor) -> tuple[Tensor, Shrinkage]:
        assert point.grad is not None
        ball, gone, count = problem.ball, point.x - problem.x, state.weight.step
        slope = 2 * gone - weights.pull(state.weight, point.loss < confidence, point.grad)
        pace = per_row(rate * (1 - count / (spec.steps + 1)).sqrt(), gone)
        wish = gone - pace * slope
        x = (problem.x + wish.sign() * (wish.abs() - beta).clamp(min=0)).clamp(ball.low, ball.high)
        ahead = (x + per_row(count / (count + _INERTIA), x) * (x - state.x)).clamp(ball.low, ball.high)
        weight, done = weights.counted(state.weight, point.margin > confidence, spec.steps)
        state = Shrinkage(x, weight)
        if bool(done.any()):
            state, ahead = choose(done, Shrinkage(problem.x, weights.renewed(weight)), state), where(done, problem.x, ahead)
        return ahead, state

    rule = Rule(init, step, over=lambda state: state.weight.search >= spec.searches)
    steps = spec.searches * (spec.steps + 1) - 1
    return settled(climb(backprop(margin, DOUBT), rule, steps, centre, weights.passed(confidence)), tighten=not confidence)

"""Carlini-Wagner in l2 (2016, arXiv 1608.04644, section VI-A)."""

from typing import NamedTuple

from torch import Tensor

from sparring.attacks import weights
from sparring.attacks.access import GradientAccess
from sparring.attacks.adam import Adam, adam, descend
from sparring.attacks.boundary import DOUBT, settled
from sparring.attacks.engine import Rule, climb
from sparring.attacks.losses import margin
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import choose
from sparring.attacks.tanh import enter, leave, stretch
from sparring.contract import attacks as contract
from sparring.contract.quantity import value


class Descent(NamedTuple):
    """What a row carries from step to step."""

    adam: Adam
    weight: weights.Weight


def cw(spec: contract.CW) -> Attack[GradientAccess]:
    """Adam on ||x - x0||^2 + weight * max(confidence - margin, 0); the weight is searched per row, each search begins anew.

    A search ends early where a tenth of its steps did not lower the objective.
    """
    confidence = value(spec.confidence)

    def init(problem: Problem, x: Tensor) -> Descent:
        return Descent(adam(enter(x, problem.ball)), weights.first(problem, value(spec.weight)))

    def step(point: Point, state: Descent, problem: Problem, t: Tensor) -> tuple[Tensor, Descent]:
        assert point.grad is not None
        short = (confidence - point.loss).double()
        total = problem.ball.distance(point.x).square() + state.weight.value * short.clamp(min=0)
        slope = 2 * (point.x - problem.x) - weights.pull(state.weight, short > 0, point.grad)
        moved = descend(state.adam, slope * stretch(state.adam.point, problem.ball), value(spec.rate))
        weight, idle = weights.stalled(state.weight, total, spec.steps)
        weight, done = weights.counted(weight, point.margin > confidence, spec.steps)
        done, state = done | idle, Descent(moved, weight)
        if bool(done.any()):
            state = choose(done, Descent(adam(enter(problem.x, problem.ball)), weights.renewed(weight)), state)
        return leave(state.adam.point, problem.ball), state

    rule = Rule(init, step, over=lambda state: state.weight.search >= spec.searches)
    steps = spec.searches * (spec.steps + 1) - 1
    return settled(climb(backprop(margin, DOUBT), rule, steps, centre, weights.passed(confidence)))

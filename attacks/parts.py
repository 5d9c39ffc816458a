"""Probes, rules and starts: the words of which attacks are made."""

from typing import NamedTuple

from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess, GradientAccess
from sparring.attacks.engine import Probe, Rule, Start
from sparring.attacks.losses import Loss
from sparring.attacks.problem import Point, Problem

_START, _DRAW = 1, 2  # streams of randomness


class Nothing(NamedTuple):
    """The state of a rule that remembers nothing."""


def backprop(loss: Loss) -> Probe[GradientAccess]:
    """Looks with the exact gradient of `loss`; one forward pass serves loss, margin and slope."""

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        goal = problem.goal
        if not slope:
            logits = target.logits(x)
            return Point(x, loss(logits, goal), goal.margin(logits))
        logits, grad = target.slope(lambda z: loss(z, goal), x)
        return Point(x, loss(logits, goal), goal.margin(logits), grad)

    return look


def decision(target: DecisionAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
    """Looks at the decision only: the margin is +1 or -1."""
    margin = target.reached(problem.goal, x).to(x.dtype) * 2 - 1
    return Point(x, margin, margin, judged=True)


def ascend(alpha: float) -> Rule:
    """Steepest ascent by `alpha`, in units of the data, and back into the ball."""

    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        assert point.grad is not None
        return problem.ball.project(point.x + alpha * problem.ball.norm.steepest(point.grad)), state

    return Rule(lambda problem, x: Nothing(), step)


def _redraw(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
    return problem.ball.sample(random.fork(random.fork(problem.key, _DRAW), t)), state


redraw = Rule(lambda problem, x: Nothing(), _redraw)
"""Forget the point and draw another one from the ball."""


def centre(problem: Problem) -> Tensor:
    """Begin at the clean input."""
    return problem.ball.centre.clone()


def anywhere(problem: Problem) -> Tensor:
    """Begin at a point drawn uniformly from the ball."""
    return problem.ball.sample(random.fork(problem.key, _START))


def begin(where: str, restart: int) -> Start:
    """The first run begins where it is told, every further one anywhere."""
    return centre if where == "clean" and restart == 0 else anywhere

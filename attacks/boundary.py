"""What the searches for the smallest change have in common."""

import math
from typing import TypeVar

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess, GradientAccess
from sparring.attacks.engine import Probe
from sparring.attacks.problem import Attack, Outcome, Point, Problem
from sparring.attacks.rows import per_row, pick, where

D = TypeVar("D", bound=DecisionAccess)

DOUBT = 2e-6
"""Part of the largest logit by which two copies of a model may differ: what is nearer to the boundary has not crossed it."""
_STRETCHES = (1e-4, 1e-3, 1e-2, 1e-1)
_NEAR, _HALVINGS = 0.9, 8
_SCATTER = 3  # a stream of randomness


def nearest(candidates: int) -> Probe[GradientAccess]:
    """Looks at the boundary toward each of the classes that score highest beside the label, and keeps the nearest one's slope.

    The loss is that class's logit less the label's; the distance |loss| / ||slope||, in the dual norm.
    """

    def gaps(logits: Tensor, labels: Tensor) -> Tensor:
        others = logits.detach().scatter(1, labels[:, None], float("-inf"))
        index = others.topk(max(min(candidates, logits.shape[1] - 1), 1), dim=1).indices
        return logits.gather(1, index) - logits.gather(1, labels[:, None])

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        goal, grad = problem.goal, None

        def distance(loss: Tensor, grad: Tensor) -> Tensor:
            length = problem.ball.norm.dual(grad)
            return torch.where(length > 0, loss.abs() / length, float("inf")).nan_to_num(nan=float("inf"))

        if slope:
            logits, loss, grad = target.slope_of_least(lambda z: gaps(z, goal.labels), distance, x)
        else:
            logits = target.logits(x)
            loss = goal.margin(logits)
        return Point(x, loss, goal.margin(logits) - DOUBT * logits.amax(1).abs(), grad)

    return look


def ahead(point: Point, problem: Problem) -> Tensor:
    """The point nearest to `point` where the goal would be reached if the margin were linear, with the slope of the loss."""
    assert point.grad is not None
    return problem.ball.onto(point.x, point.grad, -point.margin)


def scattered(problem: Problem, reach: Tensor) -> Tensor:
    """Where a further run begins: at random, half of eps away, or of `reach` (B,) float64 where that is less."""
    ball = problem.ball
    radius = (torch.minimum(ball.eps, reach) / 2).clamp(min=ball.norm.grain)
    return ball.within(torch.minimum(radius, ball.eps)).surface(random.fork(problem.key, _SCATTER))


def cosine(t: Tensor, steps: int, first: float, last: float) -> Tensor:
    """(B,) float64: from `first` at t = 0 to `last` at t = steps along half a wave."""
    return last + (first - last) * (1 + (math.pi * t.double() / steps).cos()) / 2


def settled(attack: Attack[D], *, tighten: bool = False) -> Attack[D]:
    """Bring what an attack found home: a row's outcome is a success that the judge confirms and the ball holds, or the clean row.

    The nearest point found may lie outside the ball, or so near the boundary that the judge calls it by its old name: then the
    judge is asked again about points a little further out, projected on the ball. With `tighten`, rows that run the full
    course end with a bisection on the way from the clean row to the point found.
    """

    def attempt(target: D, problem: Problem) -> Outcome:
        outcome = attack(target, problem)
        outcome = _insist(target, problem, outcome)
        if tighten and not problem.stop:
            outcome = _tighten(target, problem, outcome)
        x = where(outcome.success, outcome.x, problem.x)
        score = torch.where(outcome.success, -problem.ball.distance(x), float("-inf"))
        return outcome._replace(x=x, score=score.to(outcome.score.dtype))

    return attempt


def _insist(target: DecisionAccess, problem: Problem, outcome: Outcome) -> Outcome:
    asked_before = problem.x
    for stretch in _STRETCHES:
        further = problem.ball.project(problem.x + (1 + stretch) * (outcome.x - problem.x))
        asked = ~outcome.success & _differ(further, problem.x) & _differ(further, asked_before)
        confirmed = _confirm(target, problem, further, asked)
        x = where(confirmed, further, outcome.x)
        outcome = outcome._replace(x=x, success=outcome.success | confirmed, queries=outcome.queries + asked)
        asked_before = further
    return outcome


def _tighten(target: DecisionAccess, problem: Problem, outcome: Outcome) -> Outcome:
    way, x = outcome.x - problem.x, outcome.x
    low, high = torch.full_like(problem.ball.eps, _NEAR), torch.ones_like(problem.ball.eps)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        nearer = (problem.x + per_row(middle.to(way.dtype), way) * way).clamp(problem.ball.low, problem.ball.high)
        confirmed = _confirm(target, problem, nearer, outcome.success)
        x = where(confirmed, nearer, x)
        low, high = torch.where(confirmed, low, middle), torch.where(confirmed, middle, high)
    return outcome._replace(x=x, queries=outcome.queries + _HALVINGS * outcome.success)


def _confirm(target: DecisionAccess, problem: Problem, x: Tensor, asked: Tensor) -> Tensor:
    """(B,) bool: which of the rows asked about reach the goal."""
    confirmed = asked.clone()
    if bool(asked.any()):
        confirmed[asked] = target.reached(pick(problem.goal, asked), x[asked])
    return confirmed


def _differ(one: Tensor, other: Tensor) -> Tensor:
    return (one != other).flatten(1).any(1)

"""Decoupled direction and norm (Rony et al. 2018, arXiv 1811.09600, algorithm 1)."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, ahead, cosine, settled
from sparring.attacks.engine import Rule, climb, closest
from sparring.attacks.losses import ce
from sparring.attacks.norms.l2 import unit
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import per_row
from sparring.contract import attacks as contract

_LAST_STEP = 0.01


class Sphere(NamedTuple):
    """What a row carries from step to step."""

    radius: Tensor
    """(B,) float64."""
    crossed: Tensor
    """(B,) bool: the boundary has been crossed before."""


def ddn(spec: contract.DDN) -> Attack[GradientAccess]:
    """The gradient turns the direction, success or failure sets the length: a step, then back onto a sphere that shrinks or grows.

    Where the paper begins with a radius of 1 and steps of 1, for pictures in [0, 1], the radius here is the distance to the
    linearised boundary, as long as none was crossed, and steps are in units of the radius. It is never above eps.
    """

    def init(problem: Problem, x: Tensor) -> Sphere:
        return Sphere(torch.zeros_like(problem.ball.eps), torch.zeros_like(problem.attempt, dtype=torch.bool))

    def step(point: Point, state: Sphere, problem: Problem, t: Tensor) -> tuple[Tensor, Sphere]:
        assert point.grad is not None
        ball, won = problem.ball, point.margin > 0
        crossed = state.crossed | won
        radius = state.radius * torch.where(won, 1 - spec.gamma, 1 + spec.gamma)
        if not bool(crossed.all()):
            guess = ball.distance(point.x) + ball.norm.measure(ahead(point, problem).double() - point.x.double())
            radius = torch.where(crossed, radius, torch.maximum(radius, guess))
        radius = torch.minimum(radius, ball.eps)
        pace = per_row(cosine(t, spec.steps, 1, _LAST_STEP) * radius, point.x).to(point.x.dtype)
        direction = unit(point.x - problem.x + pace * unit(point.grad))
        moved = problem.x + per_row(radius, point.x).to(point.x.dtype) * direction
        return ball.within(radius).project(moved), Sphere(radius, crossed)

    return settled(climb(backprop(ce, DOUBT), Rule(init, step), spec.steps, centre, closest))

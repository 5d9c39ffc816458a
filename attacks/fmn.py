"""Fast minimum-norm (Pintor et al. 2021, arXiv 2102.12827, algorithm 1), in any norm."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, ahead, cosine, scattered, settled
from sparring.attacks.engine import Rule, climb, closest
from sparring.attacks.losses import margin
from sparring.attacks.norms.l2 import unit
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import per_row, where
from sparring.contract import attacks as contract

_LAST_GAMMA, _LAST_STEP = 0.001, 0.01


class Radius(NamedTuple):
    """What a row carries from step to step, (B,) float64 each."""

    radius: Tensor
    best: Tensor
    """Distance of the nearest success so far."""
    stride: Tensor
    """Length of the first step, in l2."""


def fmn(spec: contract.FMN) -> Attack[GradientAccess]:
    """Normalised steps in a ball whose radius is the distance to the linearised boundary until one is crossed, then shrinks and grows.

    Where the paper begins with steps of 1, for pictures in [0, 1], it is here the length of the way to that boundary. The radius
    is never above eps. A further run begins at random.
    """

    def init(problem: Problem, x: Tensor) -> Radius:
        none = torch.zeros_like(problem.ball.eps)
        return Radius(none, torch.full_like(none, float("inf")), none)

    def step(point: Point, state: Radius, problem: Problem, t: Tensor) -> tuple[Tensor, Radius]:
        assert point.grad is not None
        ball, won, distance = problem.ball, point.margin > 0, problem.ball.distance(point.x)
        best = torch.where(won, torch.minimum(state.best, distance), state.best)
        radius = _breathe(state.radius, won, best, cosine(t, spec.steps, spec.gamma, _LAST_GAMMA), ball.norm.grain)
        searching = best == float("inf")
        stride, reach = state.stride, radius
        if bool(searching.any()):
            way = ahead(point, problem).double() - point.x.double()
            reach = ball.norm.measure(way)
            radius = torch.where(searching, torch.maximum(radius, distance + reach), radius)
            stride = torch.where(searching, torch.maximum(stride, way.flatten(1).norm(dim=1)), stride)
        radius = torch.minimum(radius, ball.eps)
        pace = per_row(cosine(t, spec.steps, 1, _LAST_STEP) * stride, point.x).to(point.x.dtype)
        moved = ball.within(radius).project(point.x + pace * unit(point.grad))
        again = (t == 0) & (problem.attempt > 0)
        if bool(again.any()):
            moved = where(again, scattered(problem, reach), moved)
        return moved, Radius(radius, best, stride)

    return settled(climb(backprop(margin, DOUBT), Rule(init, step), spec.steps, centre, closest, tries=spec.restarts))


def _breathe(radius: Tensor, won: Tensor, best: Tensor, gamma: Tensor, grain: float) -> Tensor:
    """Smaller after a success and never above the best, larger after a failure; by a grain at least where distances have grains."""
    smaller = torch.minimum(torch.minimum(radius * (1 - gamma), radius - grain), best).clamp(min=grain)
    return torch.where(won, smaller, torch.maximum(radius * (1 + gamma), radius + grain))

"""DeepFool (Moosavi-Dezfooli, Fawzi, Frossard 2015, arXiv 1511.04599, algorithm 2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import nearest, settled
from sparring.attacks.engine import Rule, climb, closest
from sparring.attacks.parts import centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import per_row
from sparring.contract import attacks as contract
from sparring.contract.quantity import value


class Walk(NamedTuple):
    """What a row carries from step to step."""

    total: Tensor
    """The sum of all steps, before the overshoot and the bounds."""
    across: Tensor
    """(B,) bool: the point visited last was beyond the boundary."""


def deepfool(spec: contract.DeepFool) -> Attack[GradientAccess]:
    """Steps onto the nearest of the linearised boundaries until, with the sum of all steps stretched by `overshoot`, one is crossed.

    Only stretched points are looked at; the slope found there serves the point before the stretch. In it the sum of steps comes to
    lie on the boundary, even where the bounds cut some of it off, and the stretch then crosses it.
    """
    overshoot = value(spec.overshoot)

    def init(problem: Problem, x: Tensor) -> Walk:
        return Walk(torch.zeros_like(x), torch.zeros_like(problem.attempt, dtype=torch.bool))

    def step(point: Point, state: Walk, problem: Problem, t: Tensor) -> tuple[Tensor, Walk]:
        assert point.grad is not None
        ball = problem.ball
        stretched = point.x - (problem.x + state.total).clamp(ball.low, ball.high)
        gap = (point.grad * stretched).flatten(1).sum(1) - point.loss
        length = ball.norm.dual(point.grad)
        distance = torch.where(length > 0, gap / length, 0.0).nan_to_num(0.0, 0.0, 0.0)
        total = state.total + per_row(distance, point.x) * ball.steepest(point.grad, point.x)
        return (problem.x + (1 + overshoot) * total).clamp(ball.low, ball.high), Walk(total, point.margin > 0)

    rule = Rule(init, step, over=lambda state: state.across)
    return settled(climb(nearest(spec.candidates), rule, spec.steps, centre, closest))

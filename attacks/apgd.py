"""Auto-PGD (Croce, Hein 2020, arXiv 2003.01690, algorithm 1), with every schedule a table indexed by the row's own step."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.engine import Rule
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import per_row, where

_MOMENTUM, _RISES = 0.75, 0.75


class Auto(NamedTuple):
    """What a row carries from step to step."""

    previous: Tensor
    step: Tensor
    best: Tensor
    best_slope: Tensor
    best_loss: Tensor
    loss: Tensor
    rises: Tensor
    halved: Tensor
    marked: Tensor
    """The best loss at the last checkpoint."""


def checkpoints(steps: int) -> list[int]:
    """Length of the period that ends before step t, 0 where none does: .22 of all steps first, then .03 less each time, .06 at least."""
    table = [0] * (steps + 1)
    length, at = max(int(0.22 * steps), 1), 0
    while (at := at + length) <= steps:
        table[at] = length
        length = max(length - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return table


def auto(steps: int) -> Rule:
    """Momentum steps of 2 eps at first; at a checkpoint a row that has stalled halves its step and goes back to its best point."""
    table = torch.tensor(checkpoints(steps))

    def init(problem: Problem, x: Tensor) -> Auto:
        lowest = x.new_full((len(x),), float("-inf"))
        none = torch.zeros_like(problem.attempt)
        return Auto(x, 2 * problem.ball.eps.to(x.dtype), x, torch.zeros_like(x), lowest, lowest, none, none > 0, lowest)

    def step(point: Point, state: Auto, problem: Problem, t: Tensor) -> tuple[Tensor, Auto]:
        assert point.grad is not None
        ball, x, slope = problem.ball, point.x, point.grad
        better = point.loss > state.best_loss
        best, best_slope = where(better, x, state.best), where(better, slope, state.best_slope)
        best_loss = torch.maximum(point.loss, state.best_loss)
        rises = state.rises + ((point.loss > state.loss) & (t > 0))
        period = table.to(t.device)[t.clamp(max=steps)]
        due = period > 0
        halve = due & ((rises <= _RISES * period) | (~state.halved & (best_loss <= state.marked)))
        size = torch.where(halve, state.step / 2, state.step)
        if bool(halve.any()):
            x, slope = where(halve, best, x), where(halve, best_slope, slope)
        ahead = ball.project(x + per_row(size, x) * ball.steepest(slope, x))
        weight = per_row(torch.where(t == 0, 1.0, _MOMENTUM), x)
        moved = ball.project(x + weight * (ahead - x) + (1 - weight) * (x - state.previous))
        return moved, Auto(
            previous=x,
            step=size,
            best=best,
            best_slope=best_slope,
            best_loss=best_loss,
            loss=point.loss,
            rises=torch.where(due, 0, rises),
            halved=torch.where(due, halve, state.halved),
            marked=torch.where(due, best_loss, state.marked),
        )

    return Rule(init, step)

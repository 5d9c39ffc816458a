"""APGD for l1 (Croce, Hein 2021, arXiv 2103.01208, section 4): steps that move few entries, from balls that are too large inward."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.engine import Keep, Kept, Rule, strongest
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import per_row, where

_FIRST_SHARE, _DENSER = 0.2, 1.5
_SHRINK, _LEAST_STEP = 1.5, 0.1
_PHASES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radius in eps, and its part of the steps."""


class Sparse(NamedTuple):
    """What a row carries from step to step."""

    step: Tensor
    """In units of the radius."""
    share: Tensor
    """Part of the entries that a step moves."""
    moved: Tensor
    """Entries in which the best point differed from the centre at the last checkpoint."""
    best: Tensor
    best_slope: Tensor
    best_loss: Tensor


class Course(NamedTuple):
    """Schedules by step t."""

    radius: list[float]
    """Of the ball, in eps, in which the move from t ends."""
    fresh: list[bool]
    """The move from t is to the best point so far, projected on the ball of the phase that begins there."""
    due: list[bool]
    """A checkpoint ends with the visit at t."""


def course(steps: int) -> Course:
    """Schedules of so many moves, in each of which a visit is made beyond the last move of its phase."""
    first, second = (int(part * steps) for _, part in _PHASES[:2])
    radius, fresh, due = [], [], []
    begun = 0
    for (wide, _), length in zip(_PHASES, (first, second, steps + 1 - first - second), strict=True):
        period = max(int(0.04 * length), 1)
        for at in range(length):
            radius.append(wide)
            fresh.append(at == 0 and begun > 0)
            due.append(at > 0 and at % period == 0)
        begun += length
    return Course(radius[1:] + radius[-1:], [*fresh[1:], False], due)


def inside(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """The strongest of the points that lie in the ball; the others count for nothing."""
    take, won, score = strongest(problem, point, kept)
    return take & problem.ball.contains(point.x), won, score


def sparse_auto(steps: int) -> tuple[Rule, Keep]:
    """Steps on the entries of the largest slope, as many as two thirds of those that the row's best point has changed.

    At a checkpoint a row whose best point has become sparser goes back to it with the full step; another shortens its step.
    """
    tables = [torch.tensor(column) for column in course(steps)]

    def init(problem: Problem, x: Tensor) -> Sparse:
        lowest = x.new_full((len(x),), float("-inf"))
        return Sparse(
            step=torch.ones_like(lowest),
            share=torch.full_like(lowest, _FIRST_SHARE),
            moved=torch.full_like(lowest, x[0].numel() if len(x) else 0),
            best=x,
            best_slope=torch.zeros_like(x),
            best_loss=lowest,
        )

    def step(point: Point, state: Sparse, problem: Problem, t: Tensor) -> tuple[Tensor, Sparse]:
        assert point.grad is not None
        radius, fresh, due = (table.to(t.device)[t.clamp(max=steps)] for table in tables)
        better = point.loss > state.best_loss
        state = state._replace(
            best=where(better, point.x, state.best),
            best_slope=where(better, point.grad, state.best_slope),
            best_loss=torch.maximum(point.loss, state.best_loss),
        )
        back, state = _checkpoint(state, problem, due & ~fresh)
        x, slope = where(back, state.best, point.x), where(back, state.best_slope, point.grad)
        ball = problem.ball._replace(eps=problem.ball.eps * radius)
        ahead = x + per_row(state.step * ball.eps.to(x.dtype), x) * ball.steepest(slope, x, state.share)
        moved = ball.project(where(fresh, state.best, ahead))
        return moved, _begin(state, problem, moved, fresh)

    return Rule(init, step), inside


def _checkpoint(state: Sparse, problem: Problem, due: Tensor) -> tuple[Tensor, Sparse]:
    """Which rows go back to their best point (B,), and the state with the next share and step."""
    moved = _changed(state.best, problem)
    sparser = moved < 0.95 * state.moved
    step = torch.where(sparser, 1.0, (state.step / _SHRINK).clamp(min=_LEAST_STEP))
    return due & sparser, state._replace(
        step=torch.where(due, step, state.step),
        share=torch.where(due, moved / problem.x[0].numel() / _DENSER, state.share),
        moved=torch.where(due, moved, state.moved),
    )


def _begin(state: Sparse, problem: Problem, x: Tensor, fresh: Tensor) -> Sparse:
    """Rows that begin a phase at x know nothing but where they begin."""
    moved = _changed(x, problem)
    return state._replace(
        step=torch.where(fresh, 1.0, state.step),
        share=torch.where(fresh, moved / problem.x[0].numel() / _DENSER, state.share),
        moved=torch.where(fresh, moved, state.moved),
        best_loss=torch.where(fresh, float("-inf"), state.best_loss),
    )


def _changed(x: Tensor, problem: Problem) -> Tensor:
    """(B,): how many entries of x differ from the centre."""
    return (x != problem.x).flatten(1).sum(1).to(x.dtype)

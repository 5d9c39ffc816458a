"""Carlini-Wagner in l2 (2016, arXiv 1608.04644, section VI-A)."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import GradientAccess
from sparring.attacks.boundary import DOUBT, settled
from sparring.attacks.engine import Kept, Rule, climb, closest
from sparring.attacks.losses import margin
from sparring.attacks.norms import Ball
from sparring.attacks.parts import backprop, centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import per_row, where
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_INSIDE = 0.999999
"""Entries at their limits begin this near to them: at the limits tanh has no slope."""
_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8
_HEAVIER, _HEAVIEST = 10.0, 1e10
_STALLED, _CHECKS = 0.9999, 10


class Descent(NamedTuple):
    """What a row carries from step to step."""

    w: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    """(B,) int64: of this search."""
    search: Tensor
    """(B,) int64: searches that are done."""
    weight: Tensor
    light: Tensor
    """The heaviest weight that failed."""
    heavy: Tensor
    """The lightest weight that succeeded."""
    found: Tensor
    """(B,) bool: in this search."""
    marked: Tensor
    """The objective at the last check."""


def cw(spec: contract.CW) -> Attack[GradientAccess]:
    """Adam on ||x - x0||^2 + weight * max(confidence - margin, 0); the weight is searched per row, each search begins anew.

    A search ends early where a tenth of its steps did not lower the objective.
    """
    confidence = value(spec.confidence)

    def init(problem: Problem, x: Tensor) -> Descent:
        weight = torch.full_like(problem.ball.eps, value(spec.weight))
        none, never = torch.zeros_like(x), torch.full_like(weight, float("inf"))
        count = torch.zeros_like(problem.attempt)
        return Descent(_enter(x, problem.ball), none, none, count, count, weight, torch.zeros_like(weight), never, count > 0, never)

    def step(point: Point, state: Descent, problem: Problem, t: Tensor) -> tuple[Tensor, Descent]:
        reached = point.margin > confidence
        short = (confidence - point.loss).double()
        total = problem.ball.distance(point.x).square() + state.weight * short.clamp(min=0)
        check = (state.step > 0) & (state.step % max(spec.steps // _CHECKS, 1) == 0)
        done = (state.step >= spec.steps) | (check & (total > _STALLED * state.marked))
        state = _descend(point, state, problem, short > 0, value(spec.rate))
        state = state._replace(found=state.found | reached, marked=torch.where(check, total, state.marked))
        if bool(done.any()):
            state = _search(state, init(problem, problem.x), done)
        return _leave(state.w, problem.ball), state

    def keep(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
        return closest(problem, point._replace(margin=point.margin - confidence), kept)

    rule = Rule(init, step, over=lambda state: state.search >= spec.searches)
    return settled(climb(backprop(margin, DOUBT), rule, spec.searches * (spec.steps + 1) - 1, centre, keep))


def _descend(point: Point, state: Descent, problem: Problem, short: Tensor, rate: float) -> Descent:
    """One step of Adam along the slope of the objective in w."""
    assert point.grad is not None
    pull = per_row(torch.where(short, state.weight, 0.0).to(point.grad.dtype), point.grad) * point.grad
    slope = (2 * (point.x - problem.x) - pull) * _stretch(state.w, problem.ball)
    mean = _MEAN * state.mean + (1 - _MEAN) * slope
    square = _SQUARE * state.square + (1 - _SQUARE) * slope.square()
    count = per_row(state.step + 1, slope)
    ahead = (mean / (1 - _MEAN**count)) / ((square / (1 - _SQUARE**count)).sqrt() + _TINY)
    return state._replace(w=state.w - rate * ahead, mean=mean, square=square, step=state.step + 1)


def _search(state: Descent, fresh: Descent, done: Tensor) -> Descent:
    """Where a search is done, begin the next one: between the weights that failed and succeeded, or ten times heavier."""
    heavy = torch.where(state.found, torch.minimum(state.heavy, state.weight), state.heavy)
    light = torch.where(state.found, state.light, torch.maximum(state.light, state.weight))
    weight = torch.where(heavy < float("inf"), (light + heavy) / 2, (state.weight * _HEAVIER).clamp(max=_HEAVIEST))
    fresh = fresh._replace(search=state.search + 1, weight=weight, light=light, heavy=heavy)
    return Descent(*(where(done, new, old) for new, old in zip(fresh, state, strict=True)))


def _space(ball: Ball) -> tuple[Tensor, Tensor, Tensor]:
    """Which entries have limits on both sides, and the middle and half the width between them."""
    limited = (ball.high - ball.low).isfinite() & (ball.high > ball.low)
    return limited, torch.where(limited, (ball.low + ball.high) / 2, 0.0), torch.where(limited, (ball.high - ball.low) / 2, 1.0)


def _enter(x: Tensor, ball: Ball) -> Tensor:
    """The w of x: x = middle + half tanh(w) in entries with limits; elsewhere it is x itself."""
    limited, middle, half = _space(ball)
    inner = (((x - middle) / half) * _INSIDE).clamp(-_INSIDE, _INSIDE)
    # Not `atanh`, which differs in the last bit between vectors and what is left over of a batch.
    return torch.where(limited, (inner.log1p() - (-inner).log1p()) / 2, x)


def _leave(w: Tensor, ball: Ball) -> Tensor:
    limited, middle, half = _space(ball)
    return torch.where(limited, middle + half * w.tanh(), w).clamp(ball.low, ball.high)


def _stretch(w: Tensor, ball: Ball) -> Tensor:
    """The slope of x in w."""
    limited, _, half = _space(ball)
    return torch.where(limited, half * (1 - w.tanh().square()), 1.0)

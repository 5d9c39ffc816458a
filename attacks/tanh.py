"""A space in which the bounds of the data are infinitely far away (Carlini, Wagner 2016, arXiv 1608.04644, section V-B), and Adam there."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.norms import Ball
from sparring.attacks.rows import per_row

_INSIDE = 0.999999
"""Entries at their limits begin this near to them: at the limits tanh has no slope."""
_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8


class Adam(NamedTuple):
    """A point w (B, …), and the moments of its slopes."""

    w: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    """(B,) int64."""


def adam(w: Tensor) -> Adam:
    """Begin at w."""
    none = torch.zeros_like(w)
    return Adam(w, none, none, torch.zeros(len(w), dtype=torch.int64, device=w.device))


def descend(state: Adam, slope: Tensor, ball: Ball, rate: float) -> Adam:
    """One step down a slope that is given in x (B, …)."""
    slope = slope * _stretch(state.w, ball)
    mean = _MEAN * state.mean + (1 - _MEAN) * slope
    square = _SQUARE * state.square + (1 - _SQUARE) * slope.square()
    count = per_row(state.step + 1, slope)
    ahead = (mean / (1 - _MEAN**count)) / ((square / (1 - _SQUARE**count)).sqrt() + _TINY)
    return Adam(state.w - rate * ahead, mean, square, state.step + 1)


def _space(ball: Ball) -> tuple[Tensor, Tensor, Tensor]:
    """Which entries have limits on both sides, and the middle and half the width between them."""
    limited = (ball.high - ball.low).isfinite() & (ball.high > ball.low)
    return limited, torch.where(limited, (ball.low + ball.high) / 2, 0.0), torch.where(limited, (ball.high - ball.low) / 2, 1.0)


def enter(x: Tensor, ball: Ball) -> Tensor:
    """The w of x: x = middle + half tanh(w) in entries with limits; elsewhere it is x itself."""
    limited, middle, half = _space(ball)
    inner = (((x - middle) / half) * _INSIDE).clamp(-_INSIDE, _INSIDE)
    # Not `atanh`, which differs in the last bit between vectors and what is left over of a batch.
    return torch.where(limited, (inner.log1p() - (-inner).log1p()) / 2, x)


def leave(w: Tensor, ball: Ball) -> Tensor:
    """The x of w, inside the limits."""
    limited, middle, half = _space(ball)
    return torch.where(limited, middle + half * w.tanh(), w).clamp(ball.low, ball.high)


def _stretch(w: Tensor, ball: Ball) -> Tensor:
    """The slope of x in w."""
    limited, _, half = _space(ball)
    return torch.where(limited, half * (1 - w.tanh().square()), 1.0)

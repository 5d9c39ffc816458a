"""A space in which the bounds of the data are infinitely far away (Carlini, Wagner 2016, arXiv 1608.04644, section V-B)."""

import torch
from torch import Tensor

from sparring.attacks.norms import Ball

_INSIDE = 0.999999
"""Entries at their limits begin this near to them: at the limits tanh has no slope."""


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


def stretch(w: Tensor, ball: Ball) -> Tensor:
    """The slope of x in w."""
    limited, _, half = _space(ball)
    return torch.where(limited, half * (1 - w.tanh().square()), 1.0)

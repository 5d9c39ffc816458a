"""Adam (Kingma, Ba 2014, arXiv 1412.6980, algorithm 1), row by row."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.rows import per_row

_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8


class Adam(NamedTuple):
    """A point (B, …) and the moments of its slopes."""

    point: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    """(B,) int64."""


def adam(point: Tensor) -> Adam:
    """Begin at a point."""
    none = torch.zeros_like(point)
    return Adam(point, none, none, torch.zeros(len(point), dtype=torch.int64, device=point.device))


def descend(state: Adam, slope: Tensor, rate: Tensor | float) -> Adam:
    """One step down a slope (B, …)."""
    mean = _MEAN * state.mean + (1 - _MEAN) * slope
    square = _SQUARE * state.square + (1 - _SQUARE) * slope.square()
    count = per_row(state.step + 1, slope)
    ahead = (mean / (1 - _MEAN**count)) / ((square / (1 - _SQUARE**count)).sqrt() + _TINY)
    return Adam(state.point - rate * ahead, mean, square, state.step + 1)

"""The benchmark's own word on what a tool returned: in the ball, in the box, and misclassified by the original model."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SLACK = 1e-6
"""A point may lie so far outside the ball: some tools project in float32."""
_BATCH = 128


class Verdict(NamedTuple):
    """Per row of the data."""

    robust: NDArray[np.bool_]
    """Right on the clean row, and not broken by what the tool returned for it."""
    outside: int
    """Rows that were moved out of the ball or the box; they are not broken."""
    borderline: int
    """Rows whose verdict would be another in float64."""
    median: float
    """Distance of the returned points over the rows that were right; infinite where more than half of them hold."""


def judge(model: nn.Module, x: Tensor, y: Tensor, adversarial: Tensor, eps: float, norm: str = "linf") -> Verdict:
    """Distances in float64, predictions in float32 as the model is.

    Raises:
        ValueError: the tool did not return one point for each row.
    """
    if adversarial.shape != x.shape:
        raise ValueError(f"the tool returned shape {tuple(adversarial.shape)} for rows of shape {tuple(x.shape)}")
    moved = (adversarial.double() - x.double()).flatten(1)
    distance = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    inside = (distance <= eps + SLACK) & ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    right, stands = _right(model, x, y), _right(model, adversarial, y)
    doubtful = right & inside & (stands != _right(_double(model), adversarial.double(), y))
    robust = right & (stands | ~inside)
    median = distance.where(~robust, torch.inf)[right].nan_to_num(torch.inf, torch.inf).median() if bool(right.any()) else torch.inf
    return Verdict(robust.numpy(), int((~inside).sum()), int(doubtful.sum()), float(median))


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) bool: the label's logit is above every other one or equal to it, so that a tie is no success."""
    logits = torch.cat([model(part) for part in torch.split(x, _BATCH)])
    others = logits.scatter(1, y[:, None], float("-inf")).amax(1)
    return logits.gather(1, y[:, None]).squeeze(1) >= others


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()

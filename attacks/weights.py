"""How much the margin weighs against the distance is searched per row (Carlini, Wagner 2016, arXiv 1608.04644, section VI-A)."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.engine import Keep, Kept, closest
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import per_row

_HEAVIER, _HEAVIEST = 10.0, 1e10
_STALLED, _CHECKS = 0.9999, 10


class Weight(NamedTuple):
    """Where a row's search for the weight stands. Weights are (B,) float64."""

    value: Tensor
    light: Tensor
    """The heaviest weight that failed."""
    heavy: Tensor
    """The lightest weight that succeeded."""
    found: Tensor
    """(B,) bool: a success, with this weight."""
    step: Tensor
    """(B,) int64: with this weight."""
    search: Tensor
    """(B,) int64: weights that are done."""
    marked: Tensor
    """The objective at the last check."""


def first(problem: Problem, value: float) -> Weight:
    """Begin with a weight of `value`."""
    weight, none = torch.full_like(problem.ball.eps, value), torch.zeros_like(problem.attempt)
    never = torch.full_like(weight, float("inf"))
    return Weight(weight, torch.zeros_like(weight), never, none > 0, none, none, never)


def counted(weight: Weight, reached: Tensor, steps: int) -> tuple[Weight, Tensor]:
    """The state after one more step, and (B,) bool: which rows are through with the `steps` of their weight."""
    return weight._replace(found=weight.found | reached, step=weight.step + 1), weight.step >= steps


def stalled(weight: Weight, total: Tensor, steps: int) -> tuple[Weight, Tensor]:
    """The state once the objective (B,) of a step is known, and (B,) bool: where a tenth of the `steps` did not lower it."""
    check = (weight.step > 0) & (weight.step % max(steps // _CHECKS, 1) == 0)
    return weight._replace(marked=torch.where(check, total, weight.marked)), check & (total > _STALLED * weight.marked)


def renewed(weight: Weight) -> Weight:
    """The next weight: between those that failed and those that succeeded, or ten times as heavy."""
    heavy = torch.where(weight.found, torch.minimum(weight.heavy, weight.value), weight.heavy)
    light = torch.where(weight.found, weight.light, torch.maximum(weight.light, weight.value))
    value = torch.where(heavy < float("inf"), (light + heavy) / 2, (weight.value * _HEAVIER).clamp(max=_HEAVIEST))
    none, never = torch.zeros_like(weight.step), torch.full_like(value, float("inf"))
    return Weight(value, light, heavy, none > 0, none, weight.search + 1, never)


def pull(weight: Weight, short: Tensor, grad: Tensor) -> Tensor:
    """The weighted slope (B, …) of the margin, in the rows that are still short of it."""
    return per_row(torch.where(short, weight.value, 0.0).to(grad.dtype), grad) * grad


def passed(confidence: float) -> Keep:
    """The nearest point that passes the boundary by a margin of `confidence`."""

    def keep(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
        return closest(problem, point._replace(margin=point.margin - confidence), kept)

    return keep

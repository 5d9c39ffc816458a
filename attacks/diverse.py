"""Diverse inputs: gradients taken through random transforms of the picture (Xie et al. 2018, arXiv 1803.06978)."""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import GradientAccess
from sparring.attacks.engine import Probe
from sparring.attacks.losses import Loss
from sparring.attacks.parts import backprop
from sparring.attacks.pictures import picture
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import pick, where


def diverse(loss: Loss, diversity: float, shrink: float) -> Probe[GradientAccess]:
    """Looks with the gradient of `loss` at a transform of the picture, in one row of `diversity`; loss and margin are those at x.

    The transform shrinks the picture to a size drawn from [shrink, 1] and puts it anywhere in a frame of zeros. Rows that are
    not pictures (three axes) are looked at as they are. A row that is transformed takes two queries.
    """
    plain = backprop(loss)

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        if x.dim() != 4:
            return plain(target, problem, x, slope=slope)
        goal = problem.goal
        turned = random.uniforms(problem.key, ()) < diversity
        warp = _Warp(problem.key, x, shrink)
        logits, values, grad = target.slope(lambda z: loss(z, goal), where(turned, warp(x), x))
        rows = torch.nonzero(turned).flatten()
        if len(rows):
            logits[rows] = target.logits(x[rows])
            values[rows] = loss(logits[rows], pick(goal, rows))
            grad = where(turned, warp.pulled_back(grad), grad)
        return Point(x, values, goal.margin(logits), grad, looks=1 + turned.long())

    return look


class _Warp:
    """Each row's own shrink and shift: bilinear, and so a product with one matrix for the rows of pixels and one for the columns."""

    def __init__(self, key: Tensor, x: Tensor, shrink: float) -> None:
        self._seen = picture(tuple(x.shape[1:]))
        draws = random.uniforms(random.fork(key, 0), (3,))
        scale = shrink + (1 - shrink) * draws[:, 0]
        self._down = _resample(self._seen.height, scale, draws[:, 1])
        self._across = _resample(self._seen.width, scale, draws[:, 2])

    def __call__(self, x: Tensor) -> Tensor:
        """The transform of x (B, …)."""
        return self._seen.close(self._down @ self._seen.open(x) @ self._across.mT, x)

    def pulled_back(self, grad: Tensor) -> Tensor:
        """The gradient by x (B, …), from that by the transform of x."""
        return self._seen.close(self._down.mT @ self._seen.open(grad) @ self._across, grad)


def _resample(size: int, scale: Tensor, draw: Tensor) -> Tensor:
    """(B, 1, size, size): from pixels to those of the line shrunk by `scale` (B,), set off by the share `draw` (B,) of the room left."""
    at = torch.arange(size, device=scale.device, dtype=scale.dtype)
    offset = draw * (1 - scale) * size
    source = (at + 0.5 - offset[:, None]) / scale[:, None] - 0.5
    return (1 - (source[:, None, :, None] - at).abs()).clamp_(min=0)

"""The l2 ball: a radial rescale, then the box, which never lengthens a step."""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms.base import INWARD, Ball, Bounds, Norm, limits
from sparring.attacks.norms.planes import slide
from sparring.attacks.rows import per_row, where


def _measure(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1).sqrt()


def _project(x: Tensor, ball: Ball) -> Tensor:
    """Radial rescale, then the box; once more inward where float32 rounding left the ball, and the centre where eps is below an ulp."""
    shrink = torch.ones_like(ball.eps)
    delta = x - ball.centre
    for attempt in range(4):
        moved = (ball.centre + delta * per_row(shrink, delta).to(delta.dtype)).clamp(ball.low, ball.high)
        length = ball.distance(moved)
        outside = length > ball.eps
        if not bool(outside.any()):
            return moved
        shrink = torch.where(outside, shrink * ball.eps * (1 - (1 - INWARD) * 16**attempt) / length, shrink)
    return where(outside, ball.centre, moved)


def unit(vector: Tensor) -> Tensor:
    """Each row (B, …) over its length; zero stays zero, and tiny ones do not underflow."""
    peak = per_row(vector.abs().flatten(1).amax(1), vector)
    scaled = vector / torch.where(peak > 0, peak, torch.ones_like(peak))
    length = per_row(scaled.flatten(1).norm(dim=1), vector)
    return scaled / torch.where(length > 0, length, torch.ones_like(length))


def _steepest(grad: Tensor, x: Tensor, ball: Ball, share: Tensor | float) -> Tensor:
    return unit(grad)


def _extreme(grad: Tensor, ball: Ball) -> Tensor:
    return ball.centre + unit(grad) * per_row(ball.eps.to(grad.dtype), grad)


def _direction(key: Tensor, ball: Ball) -> Tensor:
    return unit(random.normals(key, tuple(ball.centre.shape[1:])))


def _sample(key: Tensor, ball: Ball) -> Tensor:
    direction = _direction(random.fork(key, 0), ball)
    size = ball.centre.shape[1:].numel()
    # Not `** (1 / size)`: torch's powers differ in the last bit between vectors and what is left over of a batch.
    radius = ball.eps * (random.uniforms(random.fork(key, 1), ()).double().log() / size).exp()
    return ball.centre + direction * per_row(radius.to(direction.dtype), direction)


def _surface(key: Tensor, ball: Ball) -> Tensor:
    direction = _direction(key, ball)
    return ball.centre + direction * per_row(ball.eps.to(direction.dtype), direction)


def _box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    return limits(centre, bounds)


L2 = Norm(_measure, _measure, _project, _steepest, _extreme, _sample, _surface, _box, slide(lambda steep: steep))

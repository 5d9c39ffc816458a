"""The linf ball is a box: all of it is elementwise, and exact."""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms.base import Ball, Bounds, Norm, limits
from sparring.attacks.norms.planes import slide
from sparring.attacks.rows import per_row


def _measure(delta: Tensor) -> Tensor:
    return delta.flatten(1).abs().amax(1)


def _dual(grad: Tensor) -> Tensor:
    return grad.flatten(1).abs().sum(1)


def _project(x: Tensor, ball: Ball) -> Tensor:
    return x.clamp(ball.low, ball.high)


def _steepest(grad: Tensor, x: Tensor, ball: Ball, share: Tensor | float) -> Tensor:
    return grad.sign()


def _extreme(grad: Tensor, ball: Ball) -> Tensor:
    return torch.where(grad > 0, ball.high, torch.where(grad < 0, ball.low, ball.centre))


def _unit(key: Tensor, ball: Ball) -> Tensor:
    return random.uniforms(key, tuple(ball.centre.shape[1:])).mul_(2).sub_(1)


def _sample(key: Tensor, ball: Ball) -> Tensor:
    unit = _unit(key, ball)
    return ball.centre + unit * per_row(ball.eps.to(unit.dtype), unit)


def _surface(key: Tensor, ball: Ball) -> Tensor:
    unit = _unit(key, ball)
    return ball.centre + unit * per_row(ball.eps.to(unit.dtype) / _measure(unit), unit)


def _box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    exact, radius = centre.double(), per_row(eps, centre)
    low, high = (exact - radius).to(centre.dtype), (exact + radius).to(centre.dtype)
    low = torch.where(exact - low.double() > radius, torch.nextafter(low, centre), low)
    high = torch.where(high.double() - exact > radius, torch.nextafter(high, centre), high)
    least, most = limits(centre, bounds)
    return torch.maximum(low, least), torch.minimum(high, most)


LINF = Norm(_measure, _dual, _project, _steepest, _extreme, _sample, _surface, _box, slide(torch.ones_like))

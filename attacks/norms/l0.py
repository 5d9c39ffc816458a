"""The l0 ball: at most `eps` entries differ from the centre's, by any amount the bounds allow."""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms.base import Ball, Bounds, Norm, limits
from sparring.attacks.norms.planes import spend


def _measure(delta: Tensor) -> Tensor:
    return (delta != 0).flatten(1).sum(1).double()


def _dual(grad: Tensor) -> Tensor:
    """One entry gains without end wherever there is a slope; the bounds are what ends it."""
    return torch.where((grad != 0).flatten(1).any(1), float("inf"), 0.0).to(grad.dtype)


def _first(weight: Tensor, count: Tensor) -> Tensor:
    """(B, d) bool: the `count` (B,) largest entries of each row of `weight` (B, d) that are above 0, earlier ones first."""
    order = weight.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(weight.shape[1], device=weight.device).expand_as(order)
    return (torch.empty_like(order).scatter_(1, order, place) < count[:, None]) & (weight > 0)


def _project(x: Tensor, ball: Ball) -> Tensor:
    """The floor(eps) largest changes stay."""
    moved = x.clamp(ball.low, ball.high)
    change = (moved.double() - ball.centre.double()).flatten(1).abs()
    return torch.where(_first(change, ball.eps.floor()).reshape(x.shape), moved, ball.centre)


def _room(slope: Tensor, ball: Ball) -> Tensor:
    """(B, d): how far each entry may go uphill from the centre; 0 where nothing limits it, for then there is no best point."""
    centre = ball.centre.flatten(1)
    room = torch.where(slope > 0, ball.high.flatten(1) - centre, centre - ball.low.flatten(1))
    return torch.where(room.isfinite() & (slope != 0), room, 0.0)


def _steepest(grad: Tensor, x: Tensor, ball: Ball, share: Tensor | float) -> Tensor:
    """The one entry of the largest slope among those that the box lets move."""
    stuck = ((grad > 0) & (x >= ball.high)) | ((grad < 0) & (x <= ball.low))
    slope = torch.where(stuck, 0.0, grad).flatten(1)
    one = torch.ones(len(grad), device=grad.device)
    return torch.where(_first(slope.abs(), one), slope.sign(), 0.0).reshape(grad.shape)


def _extreme(grad: Tensor, ball: Ball) -> Tensor:
    slope = grad.flatten(1)
    room = _room(slope, ball)
    change = torch.where(_first(slope.abs() * room, ball.eps.floor()), slope.sign() * room, 0.0)
    return ball.centre + change.reshape(grad.shape)


def _draw(key: Tensor, ball: Ball) -> Tensor:
    """The floor(eps) entries that are drawn are drawn anew between their limits; those without limits stay."""
    shape = tuple(ball.centre.shape[1:])
    chosen = _first(random.uniforms(random.fork(key, 0), shape).flatten(1), ball.eps.floor()).reshape(ball.centre.shape)
    limited = (ball.high - ball.low).isfinite()
    drawn = ball.low + random.uniforms(random.fork(key, 1), shape) * (ball.high - ball.low)
    return torch.where(chosen & limited, drawn, ball.centre)


def _box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    return limits(centre, bounds)


def _order(steep: Tensor, part: Tensor) -> Tensor:
    """The largest parts first; of entries that each close the whole gap the steepest, which has the shortest way."""
    return torch.where(part < 1, part, 1 + steep)


L0 = Norm(_measure, _dual, _project, _steepest, _extreme, _draw, _draw, _box, spend(_order), sparse=True, grain=1.0)

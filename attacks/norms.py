"""The geometry of each norm. No other file asks which norm it is.

All measures are float64 and exact claims have no slack: a point that `project` returns satisfies `measure(x - centre) <= eps`
and lies in the bounds, as computed in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.contract.threat import Norm as NormName

Bounds = tuple[float, float] | None
_INWARD = 1 - 2.0**-20


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) shaped to broadcast over the rows of `like` (B, …)."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))


class Ball(NamedTuple):
    """Where x' may lie: `centre` (B, …) float32, `eps` (B,) float64, and the elementwise box `low`, `high` (B, …)."""

    centre: Tensor
    eps: Tensor
    low: Tensor
    high: Tensor
    norm: "Norm"

    def project(self, x: Tensor) -> Tensor:
        """The nearest legal point, or one near it: inside ball and bounds, exactly."""
        return self.norm.project(x, self)

    def sample(self, key: Tensor) -> Tensor:
        """A point drawn uniformly from the ball, then projected into the bounds. `key` (B,)."""
        return self.project(self.norm.sample(key, self))

    def distance(self, x: Tensor) -> Tensor:
        """||x - centre|| (B,) float64."""
        return self.norm.measure(x.double() - self.centre.double())

    def contains(self, x: Tensor) -> Tensor:
        """(B,) bool, in float64, no slack."""
        boxed = ((x >= self.low) & (x <= self.high)).flatten(1).all(1)
        return boxed & (self.distance(x) <= self.eps)

    def select(self, index: Tensor) -> "Ball":
        """The same for some of the rows."""
        return Ball(self.centre[index], self.eps[index], self.low[index], self.high[index], self.norm)


class Norm(NamedTuple):
    """What a norm is: how it measures, projects, points uphill, draws; and the box its ball implies."""

    measure: Callable[[Tensor], Tensor]
    """(B, …) float64 -> (B,)."""
    project: Callable[[Tensor, Ball], Tensor]
    steepest: Callable[[Tensor], Tensor]
    """Gradient (B, …) -> the direction of unit norm that climbs fastest; zero where the gradient is zero."""
    sample: Callable[[Tensor, Ball], Tensor]
    box: Callable[[Tensor, Tensor, Bounds], tuple[Tensor, Tensor]]


def ball(name: NormName, centre: Tensor, eps: Tensor, bounds: Bounds) -> Ball:
    """The ball of radius `eps` (B,) about `centre` (B, …) inside `bounds`, both in units of the data."""
    norm = NORMS[name]
    low, high = norm.box(centre, eps.double(), bounds)
    return Ball(centre, eps.double(), low, high, norm)


def _limits(centre: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    low, high = bounds or (float("-inf"), float("inf"))
    edge = centre.new_tensor([low, high])
    if edge[0].item() < low:  # a bound float32 cannot hold is rounded inward
        edge[0] = torch.nextafter(edge[0], edge[1])
    if edge[1].item() > high:
        edge[1] = torch.nextafter(edge[1], edge[0])
    return edge[0].expand_as(centre), edge[1].expand_as(centre)


def _no_box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    return _limits(centre, bounds)


def _linf_box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    exact, radius = centre.double(), per_row(eps, centre)
    low, high = (exact - radius).to(centre.dtype), (exact + radius).to(centre.dtype)
    low = torch.where(exact - low.double() > radius, torch.nextafter(low, centre), low)
    high = torch.where(high.double() - exact > radius, torch.nextafter(high, centre), high)
    least, most = _limits(centre, bounds)
    return torch.maximum(low, least), torch.minimum(high, most)


def _linf_sample(key: Tensor, ball: Ball) -> Tensor:
    unit = random.uniforms(key, tuple(ball.centre.shape[1:])).mul_(2).sub_(1)
    return ball.centre + unit * per_row(ball.eps.to(unit.dtype), unit)


def _clamp(x: Tensor, ball: Ball) -> Tensor:
    return x.clamp(ball.low, ball.high)


def _l2(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1).sqrt()


def _l2_project(x: Tensor, ball: Ball) -> Tensor:
    """Radial rescale, then the box; once more inward where float32 rounding left the ball, and the centre where eps is below an ulp."""
    shrink = torch.ones_like(ball.eps)
    delta = x - ball.centre
    for attempt in range(4):
        moved = (ball.centre + delta * per_row(shrink, delta).to(delta.dtype)).clamp(ball.low, ball.high)
        length = ball.distance(moved)
        outside = length > ball.eps
        if not bool(outside.any()):
            return moved
        shrink = torch.where(outside, shrink * ball.eps * (1 - (1 - _INWARD) * 16**attempt) / length, shrink)
    return torch.where(per_row(outside, moved), ball.centre, moved)


def _l2_steepest(grad: Tensor) -> Tensor:
    peak = per_row(grad.abs().flatten(1).amax(1), grad)
    scaled = grad / torch.where(peak > 0, peak, torch.ones_like(peak))
    length = per_row(scaled.flatten(1).norm(dim=1), grad)
    return scaled / torch.where(length > 0, length, torch.ones_like(length))


def _l2_sample(key: Tensor, ball: Ball) -> Tensor:
    shape = tuple(ball.centre.shape[1:])
    direction = _l2_steepest(random.normals(random.fork(key, 0), shape))
    radius = ball.eps * random.uniforms(random.fork(key, 1), ()).double() ** (1 / torch.Size(shape).numel())
    return ball.centre + direction * per_row(radius.to(direction.dtype), direction)


LINF = Norm(lambda delta: delta.flatten(1).abs().amax(1), _clamp, torch.sign, _linf_sample, _linf_box)
L2 = Norm(_l2, _l2_project, _l2_steepest, _l2_sample, _no_box)
NORMS: dict[NormName, Norm] = {"linf": LINF, "l2": L2}

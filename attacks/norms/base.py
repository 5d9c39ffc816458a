"""The geometry of each norm. No other file asks which norm it is.

All measures are float64 and exact claims have no slack: a point that `project` returns satisfies `measure(x - centre) <= eps`
and lies in the bounds, as computed in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Bounds = tuple[float, float] | None
INWARD = 1 - 2.0**-20


class Ball(NamedTuple):
    """Where x' may lie: `centre` (B, …) float32, `eps` (B,) float64, and the elementwise box `low`, `high` (B, …)."""

    centre: Tensor
    eps: Tensor
    low: Tensor
    high: Tensor
    norm: "Norm"
    least: float = float("-inf")
    """The bounds of the data, whatever eps is."""
    most: float = float("inf")

    def project(self, x: Tensor) -> Tensor:
        """The nearest legal point, or one near it: inside ball and bounds, exactly."""
        return self.norm.project(x, self)

    def sample(self, key: Tensor) -> Tensor:
        """A point drawn uniformly from the ball, then projected into the bounds. `key` (B,)."""
        return self.project(self.norm.sample(key, self))

    def surface(self, key: Tensor) -> Tensor:
        """A point drawn from the ball's surface, then projected into the bounds. `key` (B,)."""
        return self.project(self.norm.surface(key, self))

    def steepest(self, grad: Tensor, x: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """The direction of unit norm that climbs fastest from x; see `Norm.steepest`."""
        return self.norm.steepest(grad, x, self, share)

    def extreme(self, grad: Tensor) -> Tensor:
        """The point of ball and bounds where a linear loss of this slope is the largest; the centre where it is flat."""
        return self.project(self.norm.extreme(grad, self))

    def onto(self, start: Tensor, slope: Tensor, gap: Tensor) -> Tensor:
        """The legal point nearest to `start` (B, …) where a linear loss of this slope is larger by `gap` (B,); see `norms.planes`."""
        return self.norm.onto(start, slope, gap, self)

    def within(self, radius: Tensor) -> "Ball":
        """The ball of a radius (B,) no larger about the same centre."""
        low, high = self.norm.box(self.centre, radius, None)
        return self._replace(eps=radius, low=torch.maximum(low, self.low), high=torch.minimum(high, self.high))

    def freed(self) -> "Ball":
        """The ball of infinite radius about the same centre: all that the bounds of the data allow."""
        radius = torch.full_like(self.eps, float("inf"))
        low, high = self.norm.box(self.centre, radius, (self.least, self.most))
        return self._replace(eps=radius, low=low, high=high)

    def distance(self, x: Tensor) -> Tensor:
        """||x - centre|| (B,) float64."""
        return self.norm.measure(x.double() - self.centre.double())

    def contains(self, x: Tensor) -> Tensor:
        """(B,) bool, in float64, no slack."""
        boxed = ((x >= self.low) & (x <= self.high)).flatten(1).all(1)
        return boxed & (self.distance(x) <= self.eps)


class Norm(NamedTuple):
    """What a norm is: how it measures, projects, points uphill and draws, the box its ball implies, and its planes."""

    measure: Callable[[Tensor], Tensor]
    """(B, …) float64 -> (B,)."""
    dual: Callable[[Tensor], Tensor]
    """The dual norm of gradients (B, …) -> (B,): what a step of unit norm gains at most."""
    project: Callable[[Tensor, Ball], Tensor]
    steepest: Callable[[Tensor, Tensor, Ball, Tensor | float], Tensor]
    """(gradient, x, ball, share) -> direction of unit norm that climbs fastest from x; zero where the gradient is zero.

    `share` (a number, or (B,)) is the fraction of entries that a sparse norm moves at once; the others do not look at it.
    """
    extreme: Callable[[Tensor, Ball], Tensor]
    """(gradient, ball) -> the point of ball and bounds that a linear loss of this slope likes best (l2: before its bounds)."""
    sample: Callable[[Tensor, Ball], Tensor]
    """(key, ball) -> uniform in the ball, before the bounds."""
    surface: Callable[[Tensor, Ball], Tensor]
    """(key, ball) -> on the ball's surface, before the bounds."""
    box: Callable[[Tensor, Tensor, Bounds], tuple[Tensor, Tensor]]
    """(centre, eps, bounds) -> elementwise limits that every point of ball and bounds keeps."""
    onto: Callable[[Tensor, Tensor, Tensor, Ball], Tensor]
    """(start, slope, gap (B,), ball) -> the nearest point of a hyperplane in the box; see `norms.planes`."""
    sparse: bool = False
    """Its steepest steps move few entries."""
    grain: float = 0.0
    """Distances are multiples of it, where they are not continuous."""


def limits(centre: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """The bounds as elementwise limits, rounded inward where float32 cannot hold them."""
    low, high = bounds or (float("-inf"), float("inf"))
    edge = centre.new_tensor([low, high])
    if edge[0].item() < low:  # a bound float32 cannot hold is rounded inward
        edge[0] = torch.nextafter(edge[0], edge[1])
    if edge[1].item() > high:
        edge[1] = torch.nextafter(edge[1], edge[0])
    return edge[0].expand_as(centre), edge[1].expand_as(centre)

"""The l1 ball: the exact projection on ball and box, and steps that move few entries (Croce, Hein 2021, 2103.01208)."""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms.base import INWARD, Ball, Bounds, Norm, limits
from sparring.attacks.norms.planes import spend
from sparring.attacks.rows import per_row

_ROUNDS, _NEWTON = 60, 16  # of a search for a threshold, and the first of them that may be Newton's; 4 to 7 are the rule


def _measure(delta: Tensor) -> Tensor:
    return delta.flatten(1).abs().sum(1)


def _dual(grad: Tensor) -> Tensor:
    return grad.flatten(1).abs().amax(1)


def _project(x: Tensor, ball: Ball) -> Tensor:
    """The nearest point of ball and box in l2: each change is soft thresholded, cut at the box, by the least threshold that fits."""
    moved = x.clamp(ball.low, ball.high)
    outside = torch.nonzero(ball.distance(moved) > ball.eps).flatten()
    if not len(outside):
        return moved
    part = Ball(ball.centre[outside], ball.eps[outside], ball.low[outside], ball.high[outside], ball.norm)
    wish = (x[outside].double() - part.centre.double()).flatten(1)
    size, room = wish.abs(), _room(wish, part)
    within = torch.minimum((size - _threshold(size, room, part.eps * INWARD)).clamp_(min=0), room)
    moved[outside] = _placed(within * wish.sign(), part)
    return moved


def _room(direction: Tensor, ball: Ball) -> Tensor:
    """How far each entry (B, d) may go from the centre in its direction, float64."""
    centre = ball.centre.flatten(1).double()
    return torch.where(direction > 0, ball.high.flatten(1).double() - centre, centre - ball.low.flatten(1).double())


def _threshold(size: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """The least s >= 0 (B, 1) with sum min((size - s)+, room) <= budget.

    The sum falls in s, and its pieces are lines: Newton's method between brackets ends as soon as it is on the right piece.
    """
    low, high = torch.zeros_like(budget)[:, None], size.amax(1, keepdim=True)
    s, slack = low, budget[:, None] * (1 - INWARD) / 2
    aim = budget[:, None] - slack
    for attempt in range(_ROUNDS):
        left = size - s
        over = torch.minimum(left.clamp(min=0), room).sum(1, keepdim=True) - aim
        low, high = torch.where(over > slack, s, low), torch.where(over > slack, high, s)
        settled = over.abs() <= slack
        if bool(settled.all()):
            break
        slope = ((left > 0) & (left < room)).sum(1, keepdim=True)
        newton, middle = s + over / slope, (low + high) / 2
        bracketed = (newton > low) & (newton <= high)
        s = torch.where(settled, s, torch.where(bracketed & (attempt < _NEWTON), newton, middle))
    return high


def _placed(change: Tensor, ball: Ball) -> Tensor:
    """The centre moved by `change` (B, d), which fits ball and box; each entry is rounded toward the centre."""
    centre = ball.centre.flatten(1)
    moved = (centre.double() + change).to(centre.dtype)
    longer = (moved.double() - centre.double()).abs() > change.abs()
    return torch.where(longer, torch.nextafter(moved, centre), moved).reshape(ball.centre.shape)


def _steepest(grad: Tensor, x: Tensor, ball: Ball, share: Tensor | float) -> Tensor:
    """Equal shares to the `share` of entries with the largest slope among those that the box lets move; ties share."""
    stuck = ((grad > 0) & (x >= ball.high)) | ((grad < 0) & (x <= ball.low))
    slope = torch.where(stuck, 0.0, grad).flatten(1)
    height, size = slope.abs(), slope.shape[1]
    count = (torch.as_tensor(share, device=grad.device).expand(len(grad)) * size).long().clamp(1, size)
    least = height.topk(int(count.max()), dim=1).values.gather(1, count[:, None] - 1)
    chosen = torch.where(height >= least, slope.sign(), 0.0)
    return (chosen / chosen.abs().sum(1, keepdim=True).clamp(min=1)).reshape(grad.shape)


def _extreme(grad: Tensor, ball: Ball) -> Tensor:
    """The entries of the largest slope first, each as far as the box lets it, until the budget is spent."""
    slope, budget = grad.flatten(1), (ball.eps * INWARD)[:, None]
    room = torch.where(slope == 0, 0.0, torch.minimum(_room(slope, ball), budget))
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    ranked = room.gather(1, order)
    before = ranked.cumsum(1) - ranked
    spent = torch.minimum((budget - before).clamp_(min=0), ranked)
    return _placed(torch.zeros_like(room).scatter(1, order, spent) * slope.sign(), ball)


def _exponentials(key: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
    shape = tuple(ball.centre.shape[1:])
    draws = -random.uniforms(random.fork(key, 0), shape).log()
    signs = torch.where(random.uniforms(random.fork(key, 1), shape) < 0.5, -1.0, 1.0)
    return draws * signs, draws.flatten(1).sum(1)


def _sample(key: Tensor, ball: Ball) -> Tensor:
    draws, total = _exponentials(key, ball)
    scale = ball.eps.to(draws.dtype) / (total - random.uniforms(random.fork(key, 2), ()).log())
    return ball.centre + draws * per_row(scale, draws)


def _surface(key: Tensor, ball: Ball) -> Tensor:
    draws, total = _exponentials(key, ball)
    return ball.centre + draws * per_row(ball.eps.to(draws.dtype) / total, draws)


def _box(centre: Tensor, eps: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    return limits(centre, bounds)


L1 = Norm(_measure, _dual, _project, _steepest, _extreme, _sample, _surface, _box, spend(lambda steep, part: steep), sparse=True)

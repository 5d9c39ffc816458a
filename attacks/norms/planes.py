"""The nearest point of a hyperplane inside a box: exact, for every norm.

With the start x, the slope w and the gap c it is the least change d with <w, d> = c and x + d in the box; where no point of
the box lies on the plane, it is the corner of the box that comes nearest to the plane.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sparring.attacks.norms.base import Ball

_PASSES, _EXACT = 100, 1e-7
Onto = Callable[[Tensor, Tensor, Tensor, Ball], Tensor]


def slide(rate: Callable[[Tensor], Tensor]) -> Onto:
    """For norms that move all entries at once: entry i by min(s rate(|w_i|), its room), with the one s that closes the gap.

    What is gained by s grows, and is concave and piecewise linear: Newton's method climbs to the root from below, and is there
    after a few passes, in a fraction of the time that sorting the breakpoints takes.
    """

    def onto(start: Tensor, slope: Tensor, gap: Tensor, ball: Ball) -> Tensor:
        steep, room, sign, gap = _ways(start, slope, gap, ball)
        pace = rate(steep)
        speed, reach = steep * pace, torch.zeros_like(steep[:, :1])
        for _ in range(_PASSES):
            ahead = reach * pace
            missing = gap - (steep * torch.minimum(ahead, room)).sum(1, dtype=torch.float64)
            free = (speed * (ahead < room)).sum(1, dtype=torch.float64)
            gained = torch.where((missing > 0) & (free > 0), missing / free, 0.0)[:, None]
            further = (reach + gained).to(reach.dtype)
            if torch.equal(further, reach):
                break
            reach = further  # a row that is there stays, whoever its neighbours are
        return _moved(start, sign * torch.minimum(ahead, room), ball)

    return onto


def spend(order: Callable[[Tensor, Tensor], Tensor]) -> Onto:
    """For norms that move few entries: each to the end of its room until the gap is closed, those of the largest `order` first.

    It is given how steep the entries are, of the steepest, and what part of the gap each can close, (B, d) both.
    """

    def onto(start: Tensor, slope: Tensor, gap: Tensor, ball: Ball) -> Tensor:
        steep, room, sign, gap = _ways(start, slope, gap, ball)
        needed = gap.to(steep.dtype)[:, None]
        gain = torch.minimum(steep * room, needed)
        turn = order(steep, gain / torch.where(needed > 0, needed, 1.0)).argsort(dim=1, descending=True, stable=True)
        ranked = gain.gather(1, turn)
        sums = ranked.cumsum(1, dtype=torch.float64)
        closed = torch.minimum(gap, sums[:, -1])[:, None]
        left = closed - torch.nn.functional.pad(sums[:, :-1], (1, 0))
        spent = torch.minimum(left.clamp(min=0).to(gain.dtype), ranked)
        spent = torch.where(spent > _EXACT * closed, spent, 0.0)  # a remainder of rounding moves no entry
        change = torch.zeros_like(gain).scatter(1, turn, spent) / torch.where(steep > 0, steep, 1.0)
        return _moved(start, sign * change, ball)

    return onto


def _ways(start: Tensor, slope: Tensor, gap: Tensor, ball: Ball) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How steep each entry is, of the row's steepest, how far it may go and to which side, all (B, d); and the gap (B,) in float64.

    A gap that is not a number is none; where there is no slope there is no room.
    """
    gap = torch.nan_to_num(gap.double(), nan=0.0, posinf=0.0, neginf=0.0)
    uphill = slope.flatten(1) * gap.sign().to(slope.dtype)[:, None]
    steep = uphill.abs()
    peak = steep.amax(1, keepdim=True)
    begin = start.flatten(1)
    room = torch.where(uphill > 0, ball.high.flatten(1) - begin, begin - ball.low.flatten(1))
    peak = torch.where(peak > 0, peak, 1.0)
    return steep / peak, torch.where(uphill != 0, room, 0.0).clamp(min=0), uphill.sign(), gap.abs() / peak[:, 0]


def _moved(start: Tensor, change: Tensor, ball: Ball) -> Tensor:
    """A change beyond all numbers is none."""
    moved = (start + change.reshape(start.shape)).to(start.dtype)
    return torch.where(moved.isfinite(), moved, start).clamp(ball.low, ball.high)

"""RayS (Chen, Gu 2020, arXiv 2006.12792, algorithms 1 to 3): the ray of signs along which the boundary is nearest."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks.access import DecisionAccess
from sparring.attacks.norms import Ball
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.rows import pick, where
from sparring.attacks.walks import Trail
from sparring.contract import attacks as contract

_FAR, _HALF = 2.0**12, 0.5
_SLACK = 1e-9
"""Rounding must not keep a search going that is just done."""


class Ray(NamedTuple):
    """Where each row stands."""

    up: Tensor
    """(B, …) bool: the signs of the nearest ray."""
    radius: Tensor
    """(B,) float64: where it crosses the boundary; before any has, how far rays are looked along."""
    crossed: Tensor
    """(B,) bool: some ray has crossed it."""
    level: Tensor
    """(B,) int64: the signs are parted into 2^level blocks."""
    block: Tensor
    """(B,) int64: the one that is turned round; -1 for none."""
    halving: Tensor
    """(B,) bool: a nearer ray is found, and it is known to cross the boundary between `low` and `radius`."""
    low: Tensor
    stride: Tensor
    """(B,): how far the next question lies inward, of the radius, as long as none has failed."""
    idle: Tensor
    """(B,) int64: blocks turned since one was kept."""


def rays(spec: contract.RayS) -> Attack[DecisionAccess]:
    """One question of each row at a time: is the ray with a block turned round nearer? If so, how near?

    A radius is found by strides that double inward while they succeed, and by halving then. A row is done when every block has
    been turned in vain.
    """

    def attack(target: DecisionAccess, problem: Problem) -> Outcome:
        trail, size = Trail(target, problem, spec.queries), problem.x.shape[1:].numel()
        state, rows, widths = _begun(problem), torch.arange(len(problem.x), device=problem.x.device), _widths(size)
        cycle = sum(-(-size // width) for width in widths.tolist()) + 1
        while len(rows):
            at, eps = pick(state, rows), problem.ball.eps[rows] if problem.stop else None
            up = at.up ^ _turned(at, widths)
            radius = _asked(at, eps, spec.precision)
            reached = trail.ask(rows, _corner(pick(trail.space, rows), radius, up))
            new = _learnt(at, up, radius, reached, spec.precision)
            new = _next(new, new.halving & ~_open(new, eps, spec.precision), widths, size)
            state = Ray(*(old.index_copy(0, rows, each) for old, each in zip(state, new, strict=True)))
            rows = rows[trail.open(rows) & (new.idle < cycle)]
        return trail.outcome()

    return attack


def _widths(size: int) -> Tensor:
    """How many signs a block has at each level, down to single ones."""
    levels = torch.arange((size - 1).bit_length() + 1)
    return (size + 2**levels - 1) >> levels


def _begun(problem: Problem) -> Ray:
    ball, none = problem.ball, torch.zeros_like(problem.attempt)
    typical = problem.x.double().flatten(1).square().mean(1).sqrt()
    far = torch.where(typical > 0, typical, 1.0) * _FAR
    far = far.clamp(max=ball.most - ball.least)
    return Ray(torch.ones_like(problem.x) > 0, far, none > 0, none, none - 1, none > 0, torch.zeros_like(far), torch.zeros_like(far), none)


def _turned(at: Ray, widths: Tensor) -> Tensor:
    """(N, …) bool: the signs of the block that is turned; none during a search for a radius."""
    width = widths.to(at.level.device)[at.level][:, None]
    place = torch.arange(at.up[0].numel(), device=at.level.device)[None, :]
    block = torch.where(at.halving, -1, at.block)[:, None]
    return ((place >= block * width) & (place < (block + 1) * width)).reshape(at.up.shape)


def _asked(at: Ray, eps: Tensor | None, precision: float) -> Tensor:
    """(N,): the radius to ask about."""
    inward = torch.where(at.low > 0, (at.low + at.radius) / 2, at.radius * (1 - at.stride))
    if eps is not None:
        inward = torch.where(_narrow(at, precision), eps, inward)
    return torch.where(at.halving, inward, at.radius)


def _corner(space: Ball, radius: Tensor, up: Tensor) -> Tensor:
    """The corner of the box of this radius that lies on a ray, within bounds."""
    near = space.within(radius)
    return torch.where(up, near.high, near.low)


def _learnt(at: Ray, up: Tensor, radius: Tensor, reached: Tensor, precision: float) -> Ray:
    kept = reached & ~at.halving
    stride = torch.where(at.crossed, precision, _HALF)
    return at._replace(
        up=where(kept, up, at.up),
        radius=torch.where(reached, radius, at.radius),
        crossed=at.crossed | reached,
        halving=at.halving | reached,
        low=torch.where(kept, 0.0, torch.where(at.halving & ~reached, radius, at.low)),
        stride=torch.where(kept, stride, (2 * at.stride).clamp(max=_HALF)),
        idle=torch.where(reached, 0, at.idle + (~at.halving).long()),
    )


def _narrow(at: Ray, precision: float) -> Tensor:
    return at.radius - at.low <= precision * (1 + _SLACK) * at.radius


def _open(at: Ray, eps: Tensor | None, precision: float) -> Tensor:
    """(N,) bool: the radius is not known well enough, or whether it is below eps."""
    doubtful = ~_narrow(at, precision)
    return doubtful if eps is None else doubtful | ((at.low < eps) & (eps < at.radius))


def _next(at: Ray, settled: Tensor, widths: Tensor, size: int) -> Ray:
    """Rows whose radius is settled, and those whose last block was turned in vain, go on to the next block."""
    ahead = settled | ~at.halving
    blocks = -(-size // widths.to(at.level.device))
    full = at.block + 1 >= blocks[at.level]
    level = torch.where(full, (at.level + 1) % len(blocks), at.level)
    block = torch.where(full, 0, at.block + 1)
    return at._replace(level=torch.where(ahead, level, at.level), block=torch.where(ahead, block, at.block), halving=at.halving & ~settled)

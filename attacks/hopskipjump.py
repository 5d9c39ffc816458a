"""HopSkipJump (Chen, Jordan, Wainwright 2019, arXiv 1904.02144, algorithm 2)."""

import math

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess
from sparring.attacks.norms.l2 import unit
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.rows import per_row, pick
from sparring.attacks.walks import Trail, approach, begin
from sparring.contract import attacks as contract

_PROBE = 2  # a stream of randomness
_MOST_PROBES = 10_000
_SHORTER = 30
"""Halvings of a leap before the row stays where it is."""
_TILES = 8
"""Full tiles that probes are asked in, at most."""


def hopskipjump(spec: contract.HopSkipJump) -> Attack[DecisionAccess]:
    """To the boundary by bisection; its normal there from random probes; a leap along it that shrinks until it succeeds; and again."""

    def attack(target: DecisionAccess, problem: Problem) -> Outcome:
        trail = Trail(target, problem, spec.queries)
        size = problem.x.shape[1:].numel()
        precision = 1 / (size * float(problem.ball.norm.dual(torch.ones_like(problem.x[:1]))))
        x = begin(trail, spec.starts)
        rows = trail.walking()
        x[rows] = approach(trail, rows, x[rows], precision)
        t = 0
        while len(rows := trail.walking()):
            t += 1
            count = min(int(spec.probes * math.sqrt(t)), _MOST_PROBES)
            moved = leap(trail, rows, x[rows], normal(trail, rows, x[rows], count, t), t)
            x[rows] = approach(trail, rows, moved, precision)
        return trail.outcome()

    return attack


def normal(trail: Trail, rows: Tensor, x: Tensor, count: int, t: int) -> Tensor:
    """(N, …): an estimate of the boundary's normal at x (N, …), toward the goal, from `count` probes or as many as are left.

    The mean of (phi - mean phi) u over unit directions u, phi = 1 where the probe reaches the goal and -1 elsewhere (eq. 16).
    """
    space, shape = pick(trail.space, rows), tuple(x.shape[1:])
    delta = per_row((space.distance(x) / x[0].numel()).to(x.dtype), x)
    key = random.fork(random.fork(trail.problem.key[rows], _PROBE), t)
    left = trail.left[rows].clamp(max=count)
    signed, plain, tally = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(left)
    most = int(left.max())
    together = _together(len(rows), trail.target.tile, most)
    for first in range(0, most, together):
        turn = torch.arange(first, min(first + together, most), device=rows.device)[:, None]
        asked = left > turn
        drawn = unit(random.normals(random.fork(key, turn).flatten(), shape)).reshape(len(turn), *x.shape)
        moves = (x + delta * drawn).clamp(space.low, space.high)
        reached = torch.zeros_like(asked)
        reached[asked] = trail.probe(rows.expand_as(asked)[asked], moves[asked])
        phi = torch.where(reached, 1, -1) * asked
        tally += phi.sum(0)
        moves -= x
        for move, sure, said in zip(moves, asked, phi, strict=True):  # one by one, so that a row's sum never depends on its neighbours
            plain += per_row(sure, x) * move
            signed += per_row(said, x) * move
    mean = tally / left
    return signed - per_row(torch.where(mean.abs() < 1, mean, 0.0).to(x.dtype), x) * plain


def _together(rows: int, tile: int, most: int) -> int:
    """How many probes of each row are asked at once: so many that few places of the last tile stay empty."""
    fits = max(1, min(_TILES * tile // rows, most))
    return min(range(fits, 0, -1), key=lambda each: (-rows * each % tile) / each)


def leap(trail: Trail, rows: Tensor, x: Tensor, slope: Tensor, t: int) -> Tensor:
    """(N, …): x moved along the steepest direction by its distance / sqrt(t), or by a half, a quarter … until the goal is reached."""
    space = pick(trail.space, rows)
    direction, size = space.steepest(slope, x), space.distance(x) / math.sqrt(t)
    moved, waiting = x.clone(), torch.ones_like(rows, dtype=torch.bool)
    for _ in range(_SHORTER):
        at = torch.nonzero(waiting & trail.open(rows)).flatten()
        if not len(at):
            break
        ahead = (x[at] + per_row(size[at].to(x.dtype), x) * direction[at]).clamp(space.low[at], space.high[at])
        reached = trail.ask(rows[at], ahead)
        moved[at[reached]] = ahead[reached]
        waiting[at[reached]] = False
        size = size / 2
    return moved

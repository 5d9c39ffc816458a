"""Sparse-RS (Croce, Andriushchenko, Singh, Flammarion, Hein 2020, arXiv 2006.12834, algorithm 2): which entries change is searched.

What the paper counts are pixels; here, as everywhere in l0, they are entries. The schedule's first stage lasts as long as Square's.
"""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import ScoreAccess
from sparring.attacks.engine import climb
from sparring.attacks.losses import LOSSES
from sparring.attacks.norms import Ball
from sparring.attacks.parts import score
from sparring.attacks.problem import Attack, Outcome, Problem
from sparring.attacks.square import Propose, search
from sparring.contract import attacks as contract

_START, _PLACE, _SIDE = 1, 2, 3  # streams of randomness
_TINY = 1e-9  # 0.29 of 100 is 29
_PARTS = (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)  # into which `share` is cut, stage after stage


def sparse_rs(spec: contract.SparseRS) -> Attack[ScoreAccess]:
    """The margin is climbed; with classes to reach it is the cross-entropy."""

    def attack(target: ScoreAccess, problem: Problem) -> Outcome:
        probe = score(LOSSES["ce" if problem.goal.targeted else "margin"])
        return climb(probe, search(swaps(spec.share), spec.queries), spec.queries, placed, tries=spec.restarts)(target, problem)

    return attack


def swaps(share: float) -> Propose:
    """Some of the changed entries go back, as many others go to a limit instead: at first `share` of them all, later a part of that.

    Where every entry that can move has moved, some go to their other limit.
    """
    parts = torch.tensor(_PARTS)

    def propose(problem: Problem, best: Tensor, key: Tensor, stage: Tensor) -> Tensor:
        ball = problem.ball
        changed, corner = best != ball.centre, _corner(ball, key)
        free = ~changed & (corner != ball.centre)
        count = torch.floor(share * ball.eps.floor().clamp(max=best[0].numel()) / parts.to(key.device)[stage] + _TINY).clamp(min=1)
        count = torch.minimum(count, changed.flatten(1).sum(1))
        swapped = torch.minimum(count, free.flatten(1).sum(1))
        order = _order(key, ball)
        moved = torch.where(_some(order, changed, swapped), ball.centre, best)
        moved = torch.where(_some(order, free, swapped), corner, moved)
        if bool((swapped > 0).all()):
            return moved
        across = torch.where(best == ball.high, ball.low, ball.high)
        turned = _some(order, changed & (across != ball.centre), torch.where(swapped > 0, 0, count))
        return torch.where(turned, across, moved)

    return propose


def placed(problem: Problem) -> Tensor:
    """Begin with floor(eps) entries, drawn from those that can move, at a limit."""
    ball, key = problem.ball, random.fork(problem.key, _START)
    corner = _corner(ball, key)
    return torch.where(_some(_order(key, ball), corner != ball.centre, ball.eps.floor()), corner, ball.centre)


def _order(key: Tensor, ball: Ball) -> Tensor:
    """(B, …) float64 above 0: the entries in an order that is drawn. No two are equal, so that no row's order hangs on its neighbours."""
    draws = random.uniforms(random.fork(key, _PLACE), tuple(ball.centre.shape[1:])).double()
    size = draws[0].numel()
    return draws + (torch.arange(size, dtype=torch.float64, device=key.device) * (2.0**-24 / size)).reshape(draws.shape[1:])


def _some(order: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """(B, …) bool: of the entries `among` (B, …) so many, (B,), or all if there are fewer."""
    most = int(count.clamp(max=order[0].numel()).amax()) if len(count) else 0
    value, at = torch.where(among, order, 0.0).flatten(1).topk(most, dim=1)  # sorting them all takes twenty times as long
    taken = (torch.arange(most, device=count.device) < count[:, None]) & (value > 0)
    return torch.zeros(len(order), order[0].numel(), dtype=torch.bool, device=count.device).scatter_(1, at, taken).reshape(order.shape)


def _corner(ball: Ball, key: Tensor) -> Tensor:
    """Every entry at one of its limits, drawn, but at the other one where it is there already; unmoved where it has no two limits."""
    down = random.uniforms(random.fork(key, _SIDE), tuple(ball.centre.shape[1:])) < 0.5
    down = torch.where(ball.centre == ball.low, False, torch.where(ball.centre == ball.high, True, down))
    limited = (ball.high - ball.low).isfinite()
    return torch.where(limited, torch.where(down, ball.low, ball.high), ball.centre)

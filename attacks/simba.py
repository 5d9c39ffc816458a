"""SimBA (Guo et al. 2019, arXiv 1905.07121): single directions of an orthonormal basis, forward or else backward."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import ScoreAccess, near
from sparring.attacks.engine import Rule, climb
from sparring.attacks.estimates import thrifty
from sparring.attacks.losses import LOSSES
from sparring.attacks.parts import centre
from sparring.attacks.pictures import Picture, picture
from sparring.attacks.problem import Attack, Outcome, Point, Problem
from sparring.attacks.rows import per_row, where
from sparring.attacks.square import nearby
from sparring.contract import attacks as contract

_ORDER = 6  # a stream of randomness

Direction = Callable[[Tensor, Tensor], Tensor]
"""(number (B,), like (B, …)) -> the basis vectors of these numbers, of length 1 in l2."""


class Trial(NamedTuple):
    """What a row carries from look to look."""

    x: Tensor
    """The best point so far."""
    loss: Tensor
    order: Tensor
    """(B, d): the directions in the order of their trials; drawn anew when all have been tried."""
    place: Tensor
    """(B,) int64: how many directions have been begun."""
    back: Tensor
    """(B,) bool: the point that is looked at is the step backward."""


def cosines(size: int) -> Tensor:
    """(size, size) float32: the orthonormal basis of the DCT-II, a wave in each row, the slowest first."""
    wave = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (wave + 0.5)[None, :] * wave[:, None])
    basis[0] /= math.sqrt(2)
    return (basis * math.sqrt(2 / size)).float()


def pixels(number: Tensor, like: Tensor) -> Tensor:
    """Single entries."""
    entries = torch.zeros_like(like).flatten(1)
    return entries.scatter_(1, number[:, None], 1.0).reshape(like.shape)


def waves(seen: Picture) -> Direction:
    """Cosine waves in one channel each: number = (channel * height + down) * width + across, `down` and `across` half waves."""
    tall, wide = cosines(seen.height), cosines(seen.width)

    def direction(number: Tensor, like: Tensor) -> Tensor:
        down, across = number // seen.width % seen.height, number % seen.width
        wave = tall.to(like.device)[down][:, :, None] * wide.to(like.device)[across][:, None, :]
        channel = torch.nn.functional.one_hot(number // (seen.width * seen.height), seen.channels)
        return seen.close(wave[:, None] * channel[:, :, None, None].to(wave.dtype), like)

    return direction


def pace(seen: Picture) -> Tensor:
    """(d,): the number of half waves down and across, for each number of `waves`."""
    lanes = torch.arange(seen.height)[:, None] + torch.arange(seen.width)[None, :]
    return lanes.flatten().repeat(seen.channels).float()


def search(direction: Direction, first: Tensor, share: float) -> Rule:
    """One step along a direction, or else against it, from the best point; then the next direction.

    Directions are tried by growing `first` (d,), those that are equal in an order drawn for each row, and none twice before all.
    """

    def ordered(problem: Problem, turn: Tensor) -> Tensor:
        draws = random.uniforms(random.fork(random.fork(problem.key, _ORDER), turn), tuple(first.shape))
        return (first.to(draws.device) + draws).argsort(dim=1, stable=True)

    def init(problem: Problem, x: Tensor) -> Trial:
        none = torch.zeros_like(problem.attempt)
        return Trial(x, x.new_full((len(x),), float("-inf")), ordered(problem, none), none - 1, none == 0)

    def step(point: Point, state: Trial, problem: Problem, t: Tensor) -> tuple[Tensor, Trial]:
        better = point.loss > state.loss
        best, loss = where(better, point.x, state.x), torch.where(better, point.loss, state.loss)
        back = ~better & ~state.back
        place, size = torch.where(back, state.place, state.place + 1), len(first)
        order, anew = state.order, ~back & (place % size == 0) & (place > 0)
        if bool(anew.any()):
            order = where(anew, ordered(problem, place // size), order)
        along = direction(order.gather(1, (place % size)[:, None]).squeeze(1), best)
        length = problem.ball.eps * share / problem.ball.norm.measure(along.double())
        move = per_row(torch.where(back, -length, length).to(along.dtype), along) * along
        return problem.ball.project(best + move), Trial(best, loss, order, place, back)

    return Rule(init, step)


def simba(spec: contract.SimBA) -> Attack[ScoreAccess]:
    """The first look is at the clean row, every further one at a step from the best point; steps end at the ball."""
    steps = spec.queries - 2

    def attack(target: ScoreAccess, problem: Problem) -> Outcome:
        seen, size = picture(tuple(problem.x.shape[1:])), problem.x.shape[1:].numel()
        direction, first = (pixels, torch.zeros(size)) if spec.basis == "pixel" else (waves(seen), pace(seen))
        probe = nearby(near(target, problem.x), LOSSES[spec.loss])
        rule = thrifty(search(direction, first, spec.share), spec.queries, steps, 1)
        return climb(probe, rule, steps, centre)(target, problem)

    return attack

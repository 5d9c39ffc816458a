"""Slopes learnt from scores: pairs of opposite probes (NES, SPSA), for the rules that climb."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import ScoreAccess
from sparring.attacks.engine import Probe, Rule, climb
from sparring.attacks.losses import LOSSES, Loss
from sparring.attacks.norms import Ball
from sparring.attacks.parts import centre
from sparring.attacks.problem import Attack, Point, Problem
from sparring.attacks.rows import per_row, pick
from sparring.contract import attacks as contract
from sparring.contract.quantity import value

_PROBE = 5  # a stream of randomness
_PASSES = 4
"""Full tiles that one question should hold at least."""
_PLATEAU, _LEAST = 5, 1 / 200
_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-12

Draw = Callable[[Tensor, tuple[int, ...]], Tensor]
"""(keys (B,), shape) -> directions (B, *shape) whose entries have mean 0 and variance 1, each independent of the others."""


def signs(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Entries of -1 and 1."""
    return torch.where(random.uniforms(key, shape) < 0.5, -1.0, 1.0)


def estimated(loss: Loss, draw: Draw, pairs: int, size: float) -> Probe[ScoreAccess]:
    """Looks at the scores, and estimates the slope of the loss where a row will move on: mean of (L(x + s u) - L(x - s u)) / 2s * u.

    `size`, in the threat's norm, makes the length s that a probe has in each entry. Probes stay in the bounds of the data. Rows that
    have reached the goal are not probed, except in a full course. Where a probe is answered with NaN or infinity, the margin is NaN.
    """

    def look(target: ScoreAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        logits = target.logits(x)
        point = Point(x, loss(logits, problem.goal), problem.goal.margin(logits))
        if not slope or problem.moving is None:
            return point
        probed = problem.moving & torch.isfinite(point.margin) & ((point.margin <= 0) | (not problem.stop))
        rows = torch.nonzero(probed).flatten()
        grad, margin = torch.zeros_like(x), point.margin.clone()
        if len(rows):
            grad[rows], sound = _slope(target, problem.select(rows), x[rows], loss, draw, pairs, size)
            margin[rows[~sound & (margin[rows] <= 0)]] = float("nan")
        return point._replace(grad=grad, margin=margin, looks=1 + 2 * pairs * probed)

    return look


def _slope(target: ScoreAccess, problem: Problem, x: Tensor, loss: Loss, draw: Draw, pairs: int, size: float) -> tuple[Tensor, Tensor]:
    """(B, …), and whether all it was learnt from are numbers (B,) bool.

    Rows and pairs share passes; a row's sum is taken pair by pair, whatever the passes are.
    """
    ball, total, shape = problem.ball, torch.zeros_like(x), tuple(x.shape[1:])
    reach = size / _length(ball, x)
    low, high, key = x.new_tensor(ball.least), x.new_tensor(ball.most), random.fork(problem.key, _PROBE)
    sound = torch.ones_like(problem.attempt, dtype=torch.bool)
    together = max(1, _PASSES * target.tile // (2 * len(x)))
    for first in range(0, pairs, together):
        drawn = [draw(random.fork(key, at), shape) for at in range(first, min(first + together, pairs))]
        points = torch.cat([(x + way * each).clamp(low, high) for each in drawn for way in (reach, -reach)])
        whose = torch.arange(len(x), device=x.device).repeat(2 * len(drawn))
        losses = loss(target.logits(points), pick(problem.goal, whose)).reshape(len(drawn), 2, len(x))
        for each, (ahead, back) in zip(drawn, losses, strict=True):
            rise = torch.nan_to_num(ahead - back, nan=0.0, posinf=0.0, neginf=0.0)
            total += per_row(rise, x) * each
            sound &= torch.isfinite(ahead) & torch.isfinite(back)
    return (total / (2 * reach * pairs) if reach > 0 else total), sound


class Purse(NamedTuple):
    """What a row has spent so far, beside what its rule carries along."""

    inner: object
    spent: Tensor
    """(B,) int64: queries, those of the judge included."""
    over: Tensor
    """(B,) bool: the next visit and the judge's look at it could take more than is left."""


def thrifty(rule: Rule, queries: int, steps: int, cost: int) -> Rule:
    """The rule, ended where the next visit may cost too much: `cost` queries, or one at the end of the course, and the judge's.

    The judge looks once at every success; a row that it sends back has that much less to spend.
    """

    def init(problem: Problem, x: Tensor) -> Purse:
        none = torch.zeros_like(problem.attempt)
        return Purse(rule.init(problem, x), none, none > 0)

    def step(point: Point, state: Purse, problem: Problem, t: Tensor) -> tuple[Tensor, Purse]:
        moved, inner = rule.step(point, state.inner, problem, t)
        spent = state.spent + point.looks + ((point.margin > 0) & problem.stop)
        coming = torch.where(t + 1 < steps, cost, 1) + 1
        return moved, Purse(inner, spent, spent + coming > queries)

    return Rule(init, step, over=lambda state: state.over)


class Descent(NamedTuple):
    """What a row of NES carries from step to step."""

    sum: Tensor
    alpha: Tensor
    """(B,): the step size."""
    mark: Tensor
    """(B,): the loss at the last check."""


def plateaus(alpha: float, decay: float) -> Rule:
    """Steepest steps along a decaying mean of slopes; the step halves where the loss is not above that of five steps ago."""

    def init(problem: Problem, x: Tensor) -> Descent:
        size = torch.full_like(problem.ball.eps, alpha)
        return Descent(torch.zeros_like(x), size, torch.full_like(size, float("-inf")))

    def step(point: Point, state: Descent, problem: Problem, t: Tensor) -> tuple[Tensor, Descent]:
        assert point.grad is not None
        check = t % _PLATEAU == 0
        stuck = check & (point.loss <= state.mark)
        size = torch.where(stuck, (state.alpha / 2).clamp(min=alpha * _LEAST), state.alpha)
        total = decay * state.sum + (1 - decay) * point.grad
        moved = point.x + per_row(size, point.x).to(point.x.dtype) * problem.ball.steepest(total, point.x)
        return problem.ball.project(moved), Descent(total, size, torch.where(check, point.loss.double(), state.mark))

    return Rule(init, step)


class Moments(NamedTuple):
    """What a row of SPSA carries from step to step."""

    mean: Tensor
    square: Tensor
    faded: Tensor
    """(B, 2): how much of either still comes from before the first step, where it was zero."""


def adam(alpha: float) -> Rule:
    """Ascent with Adam, and back into the ball; `alpha`, in the threat's norm, is a step in which all entries agree."""
    kept = torch.tensor([_MEAN, _SQUARE], dtype=torch.float64)

    def init(problem: Problem, x: Tensor) -> Moments:
        return Moments(torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(problem.ball.eps)[:, None].repeat(1, 2))

    def step(point: Point, state: Moments, problem: Problem, t: Tensor) -> tuple[Tensor, Moments]:
        assert point.grad is not None
        mean = _MEAN * state.mean + (1 - _MEAN) * point.grad
        square = _SQUARE * state.square + (1 - _SQUARE) * point.grad.square()
        faded = state.faded * kept.to(state.faded.device)
        first, second = (per_row(1 - each, mean).to(mean.dtype) for each in faded.unbind(1))
        ahead = (mean / first) / ((square / second).sqrt() + _TINY)
        return problem.ball.project(point.x + alpha / _length(problem.ball, ahead) * ahead), Moments(mean, square, faded)

    return Rule(init, step)


def _length(ball: Ball, like: Tensor) -> float:
    """How long a row of ones is."""
    return float(ball.norm.measure(torch.ones_like(like[:1], dtype=torch.float64)))


def _course(spec: contract.NES | contract.SPSA, draw: Draw, rule: Rule, eps: float) -> Attack[ScoreAccess]:
    """As many steps as the queries allow: each is a look and the probes; a last look and one for the judge are kept back."""
    pairs = min(spec.pairs, (spec.queries - 3) // 2)
    cost, loss = 1 + 2 * pairs, LOSSES[spec.loss]
    steps = (spec.queries - 2) // cost
    return climb(estimated(loss, draw, pairs, spec.probe_size(eps)), thrifty(rule, spec.queries, steps, cost), steps, centre)


def nes(spec: contract.NES, eps: float) -> Attack[ScoreAccess]:
    """Ilyas et al. 2018, algorithm 1, with the momentum and the plateaus of their code."""
    return _course(spec, random.normals, plateaus(spec.step_size(eps), value(spec.decay)), eps)


def spsa(spec: contract.SPSA, eps: float) -> Attack[ScoreAccess]:
    """Uesato et al. 2018, algorithm 2: probes about the current point, Adam, then back into the ball."""
    return _course(spec, signs, adam(spec.step_size(eps)), eps)

"""Probes, rules, starts and variations: the words of which attacks are made."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess, GradientAccess, ScoreAccess
from sparring.attacks.engine import Probe, Rule, Start
from sparring.attacks.losses import Loss
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import per_row

_START, _DRAW = 1, 2  # streams of randomness


class Nothing(NamedTuple):
    """The state of a rule that remembers nothing."""


def nothing(problem: Problem, x: Tensor) -> Nothing:
    """Begin with no memory."""
    return Nothing()


def backprop(loss: Loss, doubt: float = 0.0) -> Probe[GradientAccess]:
    """Looks with the exact gradient of `loss`; one forward pass serves loss, margin and slope.

    The margin is taken to be less than it seems by `doubt` times the largest logit.
    """

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        goal = problem.goal
        if slope:
            logits, values, grad = target.slope(lambda z: loss(z, goal), x)
        else:
            logits, grad = target.logits(x), None
            values = loss(logits, goal)
        return Point(x, values, goal.margin(logits) - doubt * logits.amax(1).abs(), grad)

    return look


def averaged(probe: Probe[GradientAccess], samples: int) -> Probe[GradientAccess]:
    """Expectation over transformation: the mean of several looks, for models whose answer varies (Athalye et al. 2018, 1707.07397).

    A success is what most of the looks say.
    """
    if samples == 1:
        return probe

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        points = [probe(target, problem, x, slope=slope) for _ in range(samples)]
        grads = [point.grad for point in points if point.grad is not None]
        mean = torch.stack(grads).mean(0) if grads else None
        margin = torch.stack([point.margin for point in points]).median(0).values
        return Point(x, torch.stack([point.loss for point in points]).mean(0), margin, mean, looks=sum(point.looks for point in points))

    return look


def score(loss: Loss) -> Probe[ScoreAccess]:
    """Looks at the scores alone."""

    def look(target: ScoreAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        logits = target.logits(x)
        return Point(x, loss(logits, problem.goal), problem.goal.margin(logits))

    return look


def decision(target: DecisionAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
    """Looks at the decision only: the margin is +1 or -1."""
    margin = target.reached(problem.goal, x).to(x.dtype) * 2 - 1
    return Point(x, margin, margin, judged=True)


def ascend(alpha: float, share: float = 1.0) -> Rule:
    """Steepest ascent by `alpha`, in units of the data, and back into the ball; `share` is for sparse norms."""

    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        assert point.grad is not None
        return problem.ball.project(point.x + alpha * problem.ball.steepest(point.grad, point.x, share)), state

    return Rule(nothing, step)


def _leap(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
    assert point.grad is not None
    return problem.ball.extreme(point.grad), state


leap = Rule(nothing, _leap)
"""At once to the point of ball and bounds that a linear loss of this slope likes best."""


def raw(rate: float) -> Rule:
    """Ascent by `rate` times the gradient as it is, and back into the ball."""

    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        assert point.grad is not None
        return problem.ball.project(point.x + rate * point.grad), state

    return Rule(nothing, step)


class Velocity(NamedTuple):
    """The sum of gradients that a momentum rule carries along."""

    sum: Tensor


def momentum(alpha: float, decay: float) -> Rule:
    """Steps of `alpha` along g <- decay g + grad / mean|grad| (Dong et al. 2017, 1710.06081, eq. 6, with the mean of the code).

    A zero gradient adds nothing.
    """

    def step(point: Point, state: Velocity, problem: Problem, t: Tensor) -> tuple[Tensor, Velocity]:
        assert point.grad is not None
        size = per_row(point.grad.abs().flatten(1).mean(1), point.grad)
        total = decay * state.sum + point.grad / torch.where(size > 0, size, torch.ones_like(size))
        return problem.ball.project(point.x + alpha * problem.ball.steepest(total, point.x)), Velocity(total)

    return Rule(lambda problem, x: Velocity(torch.zeros_like(x)), step)


def power(iterations: int, xi: float) -> Rule:
    """Power iterations for the direction in which the prediction moves most, then the whole budget along it.

    Miyato et al. 2017, 1704.03976, section 3.3: d <- grad KL at x0 + xi d, normalised; at last x0 + eps d.
    """

    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        assert point.grad is not None
        eps = problem.ball.eps.to(point.x.dtype)
        size = torch.where(t + 1 < iterations, eps.clamp(max=xi), eps)
        return problem.ball.project(problem.x + per_row(size, point.x) * problem.ball.steepest(point.grad, problem.x)), state

    return Rule(nothing, step)


def probing(xi: float) -> Start:
    """Begin `xi` away from the clean row, eps at most, in a direction drawn at random."""

    def start(problem: Problem) -> Tensor:
        near = problem.ball._replace(eps=problem.ball.eps.clamp(max=xi))
        return problem.ball.project(near.norm.surface(random.fork(problem.key, _START), near))

    return start


def _redraw(draw: Callable[[Problem, Tensor], Tensor]) -> Rule:
    def step(point: Point, state: Nothing, problem: Problem, t: Tensor) -> tuple[Tensor, Nothing]:
        return draw(problem, random.fork(random.fork(problem.key, _DRAW), t)), state

    return Rule(nothing, step)


redraw = _redraw(lambda problem, key: problem.ball.sample(key))
"""Forget the point and draw another one uniformly from the ball."""


def _gaussian(problem: Problem, key: Tensor) -> Tensor:
    ball = problem.ball
    noise = random.normals(key, tuple(ball.centre.shape[1:]))
    typical = ball.norm.measure(noise.double())
    return ball.project(ball.centre + noise * per_row((ball.eps / typical).to(noise.dtype), noise))


gaussian = _redraw(_gaussian)
"""Forget the point and draw Gaussian noise, scaled to have norm eps before the bounds."""


def centre(problem: Problem) -> Tensor:
    """Begin at the clean input."""
    return problem.x.clone()


def anywhere(problem: Problem) -> Tensor:
    """Begin at a point drawn uniformly from the ball."""
    return problem.ball.sample(random.fork(problem.key, _START))


def scattered(problem: Problem) -> Tensor:
    """Begin at a point of Gaussian noise of norm eps."""
    return _gaussian(problem, random.fork(problem.key, _START))


def outskirts(problem: Problem) -> Tensor:
    """Begin at a point drawn from the ball's surface."""
    return problem.ball.surface(random.fork(problem.key, _START))


def begin(where: str) -> Start:
    """The first run begins where it is told, every further one anywhere."""
    if where != "clean":
        return anywhere

    def start(problem: Problem) -> Tensor:
        first = per_row(problem.attempt == 0, problem.x)
        return torch.where(first, problem.x, anywhere(problem))

    return start


def signed(share: float) -> Start:
    """Begin at a corner: `share` of eps, in linf, along random signs."""

    def start(problem: Problem) -> Tensor:
        draws = random.uniforms(random.fork(problem.key, _START), tuple(problem.x.shape[1:]))
        reach = per_row(share * problem.ball.eps, problem.x).to(problem.x.dtype)
        return problem.ball.project(problem.x + reach * torch.where(draws < 0.5, -1.0, 1.0))

    return start


def aims(targets: int, problem: Problem) -> int:
    """How many classes there are to aim at, of so many wished for; none where the job names the class itself."""
    goal = problem.goal
    return 0 if goal.targeted or goal.reference is None else min(targets, goal.reference.shape[1] - 1)


def toward(targets: int) -> Callable[[Problem], Problem]:
    """Attempt k aims at the class ranked k-th on the clean row after the label, counting round; needs the clean logits."""

    def vary(problem: Problem) -> Problem:
        goal = problem.goal
        assert goal.reference is not None
        ranked = goal.reference.scatter(1, goal.labels[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
        aim = ranked.gather(1, (problem.attempt % targets)[:, None]).squeeze(1)
        return problem._replace(goal=goal._replace(toward=aim))

    return vary

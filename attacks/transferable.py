"""What makes the steps of MI-FGSM fool other models than the one they are taken on: to look ahead, at halves, at shifts."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks.access import GradientAccess
from sparring.attacks.engine import Probe, Rule
from sparring.attacks.losses import Loss
from sparring.attacks.parts import Velocity, backprop, momentum
from sparring.attacks.pictures import picture
from sparring.attacks.problem import Point, Problem
from sparring.attacks.rows import per_row, pick


class Ahead(NamedTuple):
    """Where a row really stands, and its momentum; the point that is visited lies ahead of it."""

    x: Tensor
    velocity: Velocity


def nesterov(alpha: float, decay: float, steps: int) -> Rule:
    """Momentum whose gradient is taken at x + alpha decay g (Lin et al. 2019, 1908.06281, eq. 6); the last visit is to x itself."""
    plain = momentum(alpha, decay)

    def init(problem: Problem, x: Tensor) -> Ahead:
        return Ahead(x, plain.init(problem, x))

    def step(point: Point, state: Ahead, problem: Problem, t: Tensor) -> tuple[Tensor, Ahead]:
        x, velocity = plain.step(point._replace(x=state.x), state.velocity, problem, t)
        further = per_row(t + 1 < steps, x) * (alpha * decay) * velocity.sum
        return problem.ball.project(x + further), Ahead(x, velocity)

    return Rule(init, step)


def halved(loss: Loss, copies: int) -> Probe[GradientAccess]:
    """Looks with the mean gradient of `loss(x / 2^i)` by x, i below `copies` (Lin et al. 2019, 1908.06281, eq. 7).

    Loss and margin are those at x. A row that moves on from here takes a query for each copy.
    """
    plain = backprop(loss)

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        point = plain(target, problem, x, slope=slope)
        if point.grad is None or problem.moving is None:
            return point
        rows = torch.nonzero(problem.moving).flatten()
        goal, total = pick(problem.goal, rows), point.grad[rows]
        for scale in (0.5**turn for turn in range(1, copies)):
            *_, grad = target.slope(lambda z: loss(z, goal), scale * x[rows])
            total = total + scale * grad
        mean = point.grad.index_copy(0, rows, total / copies)
        return point._replace(grad=mean, looks=1 + (copies - 1) * problem.moving.long())

    return look


def blurred(probe: Probe[GradientAccess], reach: int) -> Probe[GradientAccess]:
    """Looks with the gradient of another probe, convolved with a Gaussian (Dong et al. 2019, 1904.02884, eq. 8).

    The Gaussian ends `reach` pixels to each side, at three deviations. Rows that are not pictures (three axes) are looked at as they are.
    """
    line = torch.exp(-0.5 * torch.linspace(-3, 3, 2 * reach + 1).square()) if reach else torch.ones(1)
    line = line / line.sum()

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        point = probe(target, problem, x, slope=slope)
        if point.grad is None or x.dim() != 4:
            return point
        seen = picture(tuple(x.shape[1:]))
        grad = seen.open(point.grad)
        kernel = line.to(grad).expand(seen.channels, 1, 1, -1)
        grad = functional.conv2d(grad, kernel, padding=(0, reach), groups=seen.channels)
        grad = functional.conv2d(grad, kernel.mT, padding=(reach, 0), groups=seen.channels)
        return point._replace(grad=seen.close(grad, x))

    return look

"""One perturbation for all rows, fitted beforehand on rows that are not attacked.

Moosavi-Dezfooli et al. 2016, arXiv 1610.08401; fitted by gradients as in Shafahi et al. 2018, arXiv 1811.11304.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import GradientAccess, ScoreAccess
from sparring.attacks.engine import Probe, climb, latest
from sparring.attacks.losses import ce, margin
from sparring.attacks.norms import Bounds, ball
from sparring.attacks.parts import ascend, centre, redraw, score
from sparring.attacks.problem import Attack, Goal, Point, Problem, problem
from sparring.contract.attacks import UAP
from sparring.contract.quantity import value
from sparring.contract.threat import Norm


def fit(spec: UAP, norm: Norm, eps: float, target: GradientAccess, x: Tensor, labels: Tensor, bounds: Bounds, seed: int) -> Tensor:
    """The perturbation v (…) that most of the rows x (N, …) with labels (N,) are misclassified with.

    v <- P(v + alpha steepest sum_i grad min(L(clip(x_i + v), y_i), clip)), the sum over a batch drawn anew for each step and P onto
    the ball of `eps` about 0. The loss is capped so that few rows cannot rule the sum (Shafahi et al., section 4); it is the log-odds of
    `ce`, whose slope does not vanish where a model is certain, and the slope of the bounds' clip counts as 1, so that what all rows
    clip can come back.
    """
    about = ball(norm, torch.zeros_like(x[:1]), x.new_full((1,), eps, dtype=torch.float64), None)
    alone = problem(Goal(labels[:1]), about, random.keys(seed, torch.zeros_like(labels[:1])))
    look = together(x, labels, bounds, spec.batch, value(spec.clip))
    return climb(look, ascend(spec.step_size(eps)), spec.steps, centre, latest)(target, alone).x[0]


def together(rows: Tensor, labels: Tensor, bounds: Bounds, batch: int, clip: float) -> Probe[GradientAccess]:
    """The slope of many rows (N, …) with labels (N,) in the visited point x (1, …), which is added to each.

    No row is attacked, so that there is no success and no point is better than another.
    """

    def look(target: GradientAccess, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        grad, nothing = torch.zeros_like(x), x.new_full((1,), -1.0)
        drawn = random.uniforms(problem.key, (len(rows),))[0].argsort(stable=True)[:batch]
        for part in torch.split(drawn, target.tile) if slope else ():
            grad += target.slope(_capped(Goal(labels[part]), clip), moved(rows[part], x, bounds))[2].sum(0)
        return Point(x, nothing, nothing, grad)

    return look


def _capped(goal: Goal, clip: float) -> Callable[[Tensor], Tensor]:
    return lambda logits: ce(logits, goal).clamp(max=clip)


def moved(x: Tensor, v: Tensor, bounds: Bounds) -> Tensor:
    """Rows x (N, …) with v added, clipped to the bounds."""
    low, high = bounds or (float("-inf"), float("inf"))
    return (x + v).clamp(low, high)


def shifted(v: Tensor) -> Attack[ScoreAccess]:
    """The clean rows with v (…) added, moved into ball and bounds: one look each."""

    def start(problem: Problem) -> Tensor:
        return problem.ball.project(problem.x + v)

    return climb(score(margin), redraw, 0, start, latest)

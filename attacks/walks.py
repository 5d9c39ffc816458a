"""What the walks along the decision boundary have in common: a purse for each row's queries, a start, and the way to the boundary.

The rows of a problem walk abreast, so that their questions fill whole tiles; each row's course depends on its own answers alone.
"""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess
from sparring.attacks.pictures import picture
from sparring.attacks.problem import Outcome, Problem
from sparring.attacks.rows import per_row, pick, where

_BEGIN = 1  # a stream of randomness
_GRAINS = (0, 4, 1, 2)
"""Cells across a drawn picture, in turn; 0 draws every entry by itself."""
_DOUBLINGS = 12
_HALVINGS = 50


class Trail:
    """Asks the target in the rows' names: no row asks more than it may, and each one's nearest success is remembered."""

    def __init__(self, target: DecisionAccess, problem: Problem, queries: int) -> None:
        """Every row of the problem may ask so often."""
        self.target = target
        self.problem = problem
        self.space = problem.ball.freed()
        """Where the walk may go: wherever the bounds of the data allow, whatever eps is."""
        self.x = problem.x.clone()
        """(B, …): the nearest point found that reaches the goal; the clean row where there is none."""
        self.distance = torch.full_like(problem.ball.eps, float("inf"))
        """(B,) float64: how near it is."""
        self.left = torch.full_like(problem.attempt, queries)
        """(B,) int64: queries that a row may still ask."""
        self._queries = queries

    @property
    def found(self) -> Tensor:
        """(B,) bool: some point has reached the goal."""
        return self.distance.isfinite()

    def open(self, rows: Tensor) -> Tensor:
        """(N,) bool: which of `rows` (N,) may ask, and have a reason to."""
        done = self.distance[rows] <= self.problem.ball.eps[rows] if self.problem.stop else self.distance[rows] < 0
        return (self.left[rows] > 0) & ~done

    def walking(self) -> Tensor:
        """(N,) int64: the rows that have begun and may go on."""
        rows = torch.nonzero(self.found).flatten()
        return rows[self.open(rows)]

    def ask(self, rows: Tensor, x: Tensor) -> Tensor:
        """(N,) bool: whether x (N, …), one point for each of `rows` (N,) int64, all of them open, reaches the goal."""
        reached = self.probe(rows, x)
        won = rows[reached]
        if len(won):
            distance = self.problem.ball.norm.measure(x[reached].double() - self.problem.x[won].double())
            nearer = distance < self.distance[won]
            self.x[won[nearer]] = x[reached][nearer]
            self.distance[won[nearer]] = distance[nearer]
        return reached

    def probe(self, rows: Tensor, x: Tensor) -> Tensor:
        """The same for any number of points of a row, which are not remembered.

        Raises:
            ValueError: a row has fewer queries left.
        """
        asked = torch.bincount(rows, minlength=len(self.left))
        if bool((asked > self.left).any()):
            raise ValueError("a row would ask more than it may")
        self.left -= asked
        reached = self.target.reached(pick(self.problem.goal, rows), x)
        spent = torch.where(self.open(torch.arange(len(self.left), device=rows.device)), self._queries - self.left, self._queries)
        self.target.tell(float(spent.sum()) / (self._queries * len(spent)))
        return reached

    def outcome(self) -> Outcome:
        """What has become of the rows: a success is a point inside the ball that was asked about."""
        won = self.distance <= self.problem.ball.eps
        score = torch.where(won, -self.distance, float("-inf")).to(self.x.dtype)
        return Outcome(where(won, self.x, self.problem.x), won, score, self._queries - self.left, torch.zeros_like(won))


def begin(trail: Trail, tries: int) -> None:
    """Ask about points drawn within the bounds until one reaches the goal, `tries` at most; without bounds, further and further out.

    Noise in single entries comes in turn with pictures of few cells, down to a single colour, for models that call all noise alike.
    """
    for at in range(tries):
        rows = torch.nonzero(~trail.found & (trail.left > 0)).flatten()
        if not len(rows):
            break
        trail.ask(rows, _drawn(trail.problem.select(rows), at))


def _drawn(problem: Problem, at: int) -> Tensor:
    ball, key, shape = problem.ball, random.fork(random.fork(problem.key, _BEGIN), at), tuple(problem.x.shape[1:])
    if ball.most - ball.least == float("inf"):
        typical = problem.x.flatten(1).square().mean(1).sqrt()
        reach = torch.where(typical > 0, typical, 1.0) * 2.0 ** (at % _DOUBLINGS)
        return (problem.x + per_row(reach, problem.x) * random.normals(key, shape)).clamp(ball.least, ball.most)
    grain, seen = _GRAINS[at % len(_GRAINS)], picture(shape)
    if grain:
        draws = random.uniforms(key, (seen.channels, grain, grain))
        rows, columns = (axis * grain // size for axis, size in zip(seen.axes(draws), (seen.height, seen.width), strict=True))
        draws = seen.close(draws[:, :, rows][:, :, :, columns], problem.x)
    else:
        draws = random.uniforms(key, shape)
    space = ball.freed()
    return (ball.least + draws * (ball.most - ball.least)).clamp(space.low, space.high)


def approach(trail: Trail, rows: Tensor, x: Tensor, precision: float) -> Tensor:
    """From points x (N, …) that reach the goal, one for each of `rows` (N,), toward the clean rows, as far as the goal is still reached.

    Halves the radius of a ball on which x is projected until it is known to `precision`, as a fraction of the distance. A row that
    may stop at eps asks there too, before the last doubt that is smaller.
    """
    space, best = pick(trail.space, rows), x
    high = space.distance(x)
    low, slack = torch.zeros_like(high), precision * high
    eps = trail.problem.ball.eps[rows]
    for _ in range(_HALVINGS):
        straddles = (low < eps) & (eps < high) if trail.problem.stop else low > high
        at = torch.nonzero(((high - low > slack) | straddles) & trail.open(rows)).flatten()
        if not len(at):
            break
        middle = torch.where(straddles & (high - low <= slack), eps, (low + high) / 2)
        radius = middle[at]
        nearer = pick(space, at).within(radius).project(x[at])
        reached = trail.ask(rows[at], nearer)
        best = best.index_copy(0, at[reached], nearer[reached])
        high, low = high.index_copy(0, at[reached], radius[reached]), low.index_copy(0, at[~reached], radius[~reached])
    return best

"""What the walks along the decision boundary have in common: a purse for each row's queries, a start, and the way to the boundary.

The rows of a problem walk abreast, so that their questions fill whole tiles; each row's course depends on its own answers alone.
"""

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.access import DecisionAccess, quick
from sparring.attacks.pictures import picture
from sparring.attacks.problem import Outcome, Problem
from sparring.attacks.rows import per_row, pick, where

_BEGIN = 1  # a stream of randomness
_GRAINS = (0, 4, 1, 2)
"""Cells across a drawn picture, in turn; 0 draws every entry by itself."""
_DOUBLINGS = 12
_HALVINGS, _COARSE, _TRIES = 50, 0.05, 100
_STRETCHES = (1e-4, 1e-3, 1e-2, 1e-1)
_TOLD = 200
"""Times at which a walk says how far it is."""


class Trail:
    """Asks the target in the rows' names: no row asks more than it may, and each one's nearest success is remembered.

    Questions go to the target's quicker way where it has one. Then some queries are kept back for the judge, who has the last word
    on every point that would end a row's walk, and on those that are remembered at the end.
    """

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
        self._quick = quick(target)
        self._queries, self._back = queries, 0 if self._quick is None else 1 + len(_STRETCHES)
        self._spent = torch.zeros_like(problem.attempt)
        self._untold = 0

    @property
    def left(self) -> Tensor:
        """(B,) int64: queries that a row may still ask on its walk."""
        return (self._queries - self._back - self._spent).clamp(min=0)

    @property
    def found(self) -> Tensor:
        """(B,) bool: some point has reached the goal."""
        return self.distance.isfinite()

    @property
    def inside(self) -> Tensor:
        """(B,) bool: the nearest point lies in the ball."""
        return self.found & (self.distance <= self.problem.ball.eps)

    def open(self, rows: Tensor) -> Tensor:
        """(N,) bool: which of `rows` (N,) may ask, and have a reason to."""
        may = self._spent[rows] < self._queries - self._back
        return may & ~self.inside[rows] if self.problem.stop else may

    def walking(self) -> Tensor:
        """(N,) int64: the rows that have begun and may go on."""
        rows = torch.nonzero(self.found).flatten()
        return rows[self.open(rows)]

    def ask(self, rows: Tensor, x: Tensor) -> Tensor:
        """(N,) bool: whether x (N, …), one point for each of `rows` (N,) int64, all of them open, reaches the goal."""
        reached = self.probe(rows, x)
        at = torch.nonzero(reached).flatten()
        distance = self.problem.ball.norm.measure(x[at].double() - self.problem.x[rows[at]].double())
        if self.problem.stop and self._quick is not None:
            ending = distance <= self.problem.ball.eps[rows[at]]
            refused = torch.zeros_like(ending)
            refused[ending] = ~self._judged(rows[at[ending]], x[at[ending]])
            reached[at[refused]] = False
            at, distance = at[~refused], distance[~refused]
        nearer = distance < self.distance[rows[at]]
        at, distance = at[nearer], distance[nearer]
        self.x[rows[at]], self.distance[rows[at]] = x[at], distance
        return reached

    def probe(self, rows: Tensor, x: Tensor) -> Tensor:
        """The same for any number of points of a row, as many as are left; they are not remembered."""
        if not len(rows):
            return rows > 0
        self._spent.index_add_(0, rows, torch.ones_like(rows))
        self._tell(len(rows))
        return (self._quick or self.target.reached)(pick(self.problem.goal, rows), x)

    def _tell(self, asked: int) -> None:
        """How much is behind us, whenever some more has been asked: a row that is done has everything behind it."""
        self._untold += asked
        if self._untold * _TOLD >= self._queries * len(self._spent):
            self._untold = 0
            behind = torch.where(self.open(torch.arange(len(self._spent), device=self._spent.device)), self._spent, self._queries)
            self.target.tell(float(behind.sum()) / (self._queries * len(behind)))

    def _judged(self, rows: Tensor, x: Tensor) -> Tensor:
        """(N,) bool: the judge's word on x (N, …), one point for each of `rows`; no where a row has no query left."""
        may = self._spent[rows] < self._queries
        answer = torch.zeros_like(may)
        if bool(may.any()):
            self._spent[rows[may]] += 1
            answer[may] = self.target.reached(pick(self.problem.goal, rows[may]), x[may])
        return answer

    def outcome(self) -> Outcome:
        """What has become of the rows: a success is a point inside the ball of which the judge says so.

        Where the judge calls the nearest point by its old name, points a little further out take its place.
        """
        ball, distance, won = self.problem.ball, self.distance, self.inside
        if self._quick is not None and not self.problem.stop:
            claimed = torch.nonzero(won).flatten()
            for stretch in (0.0, *_STRETCHES):
                further = ball.project(self.problem.x + (1 + stretch) * (self.x - self.problem.x)) if stretch else self.x
                confirmed = self._judged(claimed, further[claimed])
                self.x[claimed[confirmed]] = further[claimed[confirmed]]
                claimed = claimed[~confirmed]
            won[claimed] = False
            distance = ball.distance(self.x)
        score = torch.where(won, -distance, float("-inf")).to(self.x.dtype)
        return Outcome(where(won, self.x, self.problem.x), won, score, self._spent, torch.zeros_like(won))


def begin(trail: Trail, starts: int) -> Tensor:
    """(B, …): the nearest of several points on the boundary, known to 5 %; where a walk may begin. Rows without any keep the clean row.

    Points are drawn within the bounds, or without bounds further and further out: `starts` of them, more only for rows that have not
    found one that reaches the goal. The first is another row of the data, where the problem has one. One that was found is brought to
    the boundary; of later draws it is asked first whether they are nearer. Noise in single entries comes in turn with pictures of
    few cells, down to a single colour, for models that call all noise alike.
    """
    best, distance = trail.problem.x.clone(), torch.full_like(trail.distance, float("inf"))
    everyone = torch.arange(len(distance), device=distance.device)
    for at in range(max(starts, _TRIES)):
        rows = everyone[trail.open(everyone) & ((at < starts) | distance.isinf())]
        if not len(rows):
            break
        space = pick(trail.space, rows)
        drawn = space.within((1 - _COARSE) * distance[rows]).project(_drawn(trail.problem.select(rows), at))
        reached = trail.ask(rows, drawn)
        rows = rows[reached]
        best[rows] = approach(trail, rows, drawn[reached], _COARSE)
        distance[rows] = pick(trail.space, rows).distance(best[rows])
    return best


def _drawn(problem: Problem, at: int) -> Tensor:
    if problem.other is not None:
        if at == 0:
            return problem.other
        at -= 1
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
    low, eps = torch.zeros_like(high), trail.problem.ball.eps[rows]
    for _ in range(_HALVINGS):
        vague = high - low > precision * high
        straddles = (low < eps) & (eps < high) if trail.problem.stop else low > high
        at = torch.nonzero((vague | straddles) & trail.open(rows)).flatten()
        if not len(at):
            break
        middle = torch.where(straddles & ~vague, eps, (low + high) / 2)
        radius = middle[at]
        nearer = pick(space, at).within(radius).project(x[at])
        reached = trail.ask(rows[at], nearer)
        best = best.index_copy(0, at[reached], nearer[reached])
        high, low = high.index_copy(0, at[reached], radius[reached]), low.index_copy(0, at[~reached], radius[~reached])
    return best

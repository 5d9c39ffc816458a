"""The one loop that climbs.

An attack is a sentence of parts: a *probe* says how a point is looked at, a *rule* how it moves, a *start* where it begins, a
*keep* what is remembered. Rows of a shard share one pool: those that are done leave, waiting ones take their slots, so every
pass is a full tile and a step `t` is per row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparring.attacks.access import DecisionAccess
from sparring.attacks.problem import Attack, Outcome, Point, Problem, survivors

A_contra = TypeVar("A_contra", bound=DecisionAccess, contravariant=True)
A = TypeVar("A", bound=DecisionAccess)


class Probe(Protocol[A_contra]):
    """How a point is looked at. One look at one row is one query."""

    def __call__(self, target: A_contra, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        """Visit x (B, …), at most one tile; `slope` says whether any row will move on from here."""
        ...


class Rule(NamedTuple):
    """How a point moves. A state is a NamedTuple of tensors with rows first (or an empty tuple)."""

    init: Callable[[Problem, Tensor], Any]
    """(problem, x) -> state, for all rows."""
    step: Callable[[Point, Any, Problem, Tensor], tuple[Tensor, Any]]
    """(point, state, problem, t (B,)) -> (next x inside the ball, state), for the rows in hand."""


Start = Callable[[Problem], Tensor]
Keep = Callable[[Point, Tensor, Tensor], Tensor]
"""(point, kept score (B,), kept success (B,)) -> (B,) bool: rows whose kept point is replaced."""


def strongest(point: Point, score: Tensor, success: Tensor) -> Tensor:
    """A success beats a failure; then the larger margin among successes, the larger loss among failures."""
    won = point.margin > 0
    return torch.where(won, ~success | (point.margin > score), ~success & (point.loss > score))


def latest(point: Point, score: Tensor, success: Tensor) -> Tensor:
    """The last point visited."""
    return torch.ones_like(success)


def climb(probe: Probe[A], rule: Rule, steps: int, start: Start, keep: Keep = strongest) -> Attack[A]:
    """An attack that makes `steps` moves and visits `steps + 1` points: the last move is scored too."""

    def attack(target: A, problem: Problem) -> Outcome:
        x = start(problem)
        state = rule.init(problem, x)
        count = len(x)
        t = torch.zeros(count, dtype=torch.int64, device=x.device)
        score = x.new_full((count,), float("-inf"))
        outcome = Outcome(x.clone(), t > 0, score, t.clone(), t > 0)
        waiting, doubtful = torch.arange(count, device=x.device), t[:0]
        while len(waiting) or len(doubtful):
            here, waiting = waiting[: target.tile], waiting[target.tile :]
            if len(here):
                part, moving = problem.select(here), t[here] < steps
                point = probe(target, part, x[here], slope=bool(moving.any()))
                _remember(outcome, here, point, keep)
                won = outcome.success[here] if problem.stop else torch.zeros_like(moving)
                _advance(rule, point, part, x, state, t, here, moving)
                waiting = torch.cat((here[moving & ~won], waiting))
                if not point.judged:
                    doubtful = torch.cat((doubtful, here[won | (~moving & outcome.success[here])]))
            if len(doubtful) >= target.tile or not len(waiting):
                refused = _judge(target, problem, outcome, doubtful)
                waiting, doubtful = torch.cat((refused[t[refused] <= steps], waiting)), doubtful[:0]
        return outcome

    return attack


def _remember(outcome: Outcome, here: Tensor, point: Point, keep: Keep) -> None:
    take = keep(point, outcome.score[here], outcome.success[here])
    rows, won = here[take], point.margin[take] > 0
    outcome.x[rows] = point.x[take]
    outcome.success[rows] = won
    outcome.score[rows] = torch.where(won, point.margin[take], point.loss[take]).to(outcome.score.dtype)
    outcome.faulty[here] |= ~torch.isfinite(point.margin)
    outcome.queries[here] += 1


def _advance(rule: Rule, point: Point, part: Problem, x: Tensor, state: Any, t: Tensor, here: Tensor, moving: Tensor) -> None:
    """Rows that are won move too, so that one the judge refuses goes on where it stood."""
    index = torch.nonzero(moving).flatten()
    rows = here[index]
    if len(rows):
        old = type(state)(*(field[rows] for field in state))
        x[rows], new = rule.step(point.select(index), old, part.select(index), t[rows])
        for field, value in zip(state, new, strict=True):
            field[rows] = value
    t[here] += 1


def _judge(target: DecisionAccess, problem: Problem, outcome: Outcome, doubtful: Tensor) -> Tensor:
    """Ask the judge about claimed successes; those refused are failures again, and returned."""
    if not len(doubtful):
        return doubtful
    confirmed = target.reached(problem.goal.select(doubtful), outcome.x[doubtful])
    refused = doubtful[~confirmed]
    outcome.queries[doubtful] += 1
    outcome.success[refused] = False
    outcome.score[refused] = float("-inf")
    return refused


def restarts(count: int, attack: Callable[[int], Attack[A]]) -> Attack[A]:
    """Up to `count` runs per row, `attack(r)` being the r-th; later ones see only rows not yet broken.

    Each row keeps its best run: by success, then by score.
    """

    def repeated(target: A, problem: Problem) -> Outcome:
        outcome = attack(0)(target, problem.fork(0))
        for r in range(1, count):
            rows = survivors(outcome) if problem.stop else torch.arange(len(problem.key), device=problem.key.device)
            if not len(rows):
                break
            outcome = outcome.better_of(attack(r)(target, problem.select(rows).fork(r)), rows)
        return outcome

    return repeated

"""The one loop that climbs.

An attack is a sentence of parts: a *probe* says how a point is looked at, a *rule* how it moves, a *start* where it begins, a
*keep* what is remembered. A row may be tried several times (restarts, target classes); its tries wait in line, and the first
success ends the rest. All tries of a shard share one tile: those that are done leave, waiting ones take their slots, so that
every pass is full and a step `t` is per slot.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparring.attacks.access import DecisionAccess, ScoreAccess, ahead
from sparring.attacks.problem import Attack, Outcome, Point, Problem
from sparring.attacks.rows import join, pick, where

A_contra = TypeVar("A_contra", bound=DecisionAccess, contravariant=True)
A = TypeVar("A", bound=DecisionAccess)
S = TypeVar("S", bound=ScoreAccess)
_LOOK = 4  # a stream of randomness


class Probe(Protocol[A_contra]):
    """How a point is looked at. One look at one row is one query."""

    def __call__(self, target: A_contra, problem: Problem, x: Tensor, *, slope: bool) -> Point:
        """Visit x (B, …), at most one tile; `slope` says whether any row will move on from here.

        `problem.key` is the visit's own: what a probe draws from it is fresh at every step.
        """
        ...


class Patience(NamedTuple):
    """Of a rule whose state only a better look changes: where it moves as long as there is none, so that looks can be taken ahead.

    Its probe takes one query a look.
    """

    onward: Callable[[Any, Problem, Tensor], Tensor]
    """(state, problem, t (B,)) -> next x: what `step` returns after a look that was no better."""
    better: Callable[[Point, Any], Tensor]
    """(point, state) -> (B,) bool."""


class Rule(NamedTuple):
    """How a point moves. A state is a NamedTuple of tensors with rows first, nested if need be."""

    init: Callable[[Problem, Tensor], Any]
    """(problem, x) -> state."""
    step: Callable[[Point, Any, Problem, Tensor], tuple[Tensor, Any]]
    """(point, state, problem, t (B,)) -> (next x, state). What it returns for rows past their last step is not looked at."""
    over: Callable[[Any], Tensor] | None = None
    """state -> (B,) bool: rows that are done before their last step; the x it returned for them is not visited."""
    patience: Patience | None = None


class Kept(NamedTuple):
    """What is remembered of each slot's visits."""

    x: Tensor
    success: Tensor
    score: Tensor
    queries: Tensor
    faulty: Tensor


Start = Callable[[Problem], Tensor]
Keep = Callable[[Problem, Point, Kept], tuple[Tensor, Tensor, Tensor]]
"""(problem, point, kept) -> (B,) each: whether the kept point is replaced, by a success or not, of what score."""


def strongest(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """A success beats a failure; then the larger margin among successes, the larger loss among failures."""
    won = point.margin > 0
    score = torch.where(won, point.margin, point.loss)
    return _better(won, score, kept), won, score


def latest(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """The last point visited."""
    won = point.margin > 0
    return torch.ones_like(won), won, torch.where(won, point.margin, point.loss)


def closest(problem: Problem, point: Point, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest point that reaches the goal; a success if inside the ball."""
    distance = problem.ball.distance(point.x)
    reached = point.margin > 0
    won = reached & problem.ball.contains(point.x)
    score = torch.where(reached, -distance, float("-inf")).to(kept.score.dtype)
    return _better(won, score, kept), won, score


def _better(won: Tensor, score: Tensor, kept: Kept) -> Tensor:
    return (won & ~kept.success) | ((won == kept.success) & (score > kept.score))


class _Slots(NamedTuple):
    """The tries under way."""

    row: Tensor
    problem: Problem
    x: Tensor
    state: Any
    t: Tensor
    kept: Kept


class _Ledger:
    """Which tries wait, and what has become of every row. A row's first success in the order of its tries is its outcome."""

    def __init__(self, problem: Problem, tries: int) -> None:
        rows, device = len(problem.key), problem.key.device
        self.problem, self.tries = problem, tries
        self.waiting = torch.arange(rows * tries, device=device)
        self.limit = torch.full((rows,), tries, device=device)  # tries from here on are not needed
        self.attempt = torch.full((rows,), tries, device=device)
        self.queries = torch.zeros(rows, tries, dtype=torch.int64, device=device)
        self.faulty = torch.zeros(rows, tries, dtype=torch.bool, device=device)
        none = torch.zeros(rows, dtype=torch.bool, device=device)
        lowest = problem.x.new_full((rows,), float("-inf"))
        self.outcome = Outcome(problem.x.clone(), none, lowest, none.long(), none.clone())

    def take(self, count: int) -> tuple[Tensor, Problem]:
        """The next tries in line: rows, and their problems."""
        rows = max(len(self.problem.key), 1)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        row, attempt = taken % rows, taken // rows
        part = self.problem.select(row)._replace(attempt=attempt, name=taken)
        return row, part.fork(attempt)

    def stale(self, slots: _Slots) -> Tensor:
        """(S,) bool: tries of rows that an earlier try has broken meanwhile."""
        return slots.problem.attempt >= self.limit[slots.row]

    def settle(self, done: _Slots) -> None:
        """Write finished tries down. Tries of one row may finish in any order and at once: earlier ones have the last word."""
        for attempt in sorted(set(done.problem.attempt.tolist())):
            self._settle(pick(done, done.problem.attempt == attempt), attempt)
        rows = max(len(self.problem.key), 1)
        self.waiting = self.waiting[self.waiting // rows < self.limit[self.waiting % rows]]

    def _settle(self, done: _Slots, attempt: int) -> None:
        row, kept, mine = done.row, done.kept, self.outcome
        self.queries[row, attempt], self.faulty[row, attempt] = kept.queries, kept.faulty
        if self.problem.stop:
            self.limit[row] = torch.where(kept.success, self.limit[row].clamp(max=attempt + 1), self.limit[row])
        both = kept.success & mine.success[row]
        higher = (kept.score > mine.score[row]) | ((kept.score == mine.score[row]) & (attempt < self.attempt[row]))
        earlier = (attempt < self.attempt[row]) if self.problem.stop else higher
        take = (kept.success & ~mine.success[row]) | (both & earlier) | (~kept.success & ~mine.success[row] & higher)
        taken = row[take]
        mine.x[taken], mine.success[taken], mine.score[taken] = kept.x[take], kept.success[take], kept.score[take]
        self.attempt[taken] = attempt

    def share(self, slots: _Slots, steps: int) -> float:
        """How much of all tries is behind us, if every one that waits should be needed."""
        ahead = len(self.waiting) + len(slots.t) - float(slots.t.sum()) / (steps + 1)
        return 1 - ahead / max(1, len(self.limit) * self.tries)

    def close(self) -> Outcome:
        """The outcome of every row; tries begun ahead of the one that succeeded are not charged to the row."""
        needed = torch.arange(self.tries, device=self.limit.device) < self.limit[:, None]
        return self.outcome._replace(queries=(self.queries * needed).sum(1), faulty=(self.faulty & needed).any(1))


def _same(problem: Problem) -> Problem:
    return problem


def climb(
    probe: Probe[A],
    rule: Rule,
    steps: int,
    start: Start,
    keep: Keep = strongest,
    tries: int = 1,
    vary: Callable[[Problem], Problem] = _same,
) -> Attack[A]:
    """An attack that makes `steps` moves and visits `steps + 1` points: the last move is scored too.

    Every row is tried up to `tries` times, with fresh draws; `vary` turns its problem into that of `problem.attempt`.
    """

    def begin(row: Tensor, problem: Problem) -> _Slots:
        problem = vary(problem)
        x = start(problem)
        none = torch.zeros_like(row)
        kept = Kept(problem.x, none > 0, x.new_full((len(row),), float("-inf")), none, none > 0)
        return _Slots(row, problem, x, rule.init(problem, x), none, kept)

    def look(target: A, slots: _Slots) -> Point:
        goes_on = slots.t < steps
        return probe(target, slots.problem.fork(_LOOK).fork(slots.t)._replace(moving=goes_on), slots.x, slope=bool(goes_on.any()))

    def visit(target: A, slots: _Slots) -> tuple[_Slots, bool]:
        looks = ahead(target, len(slots.row)) if rule.patience else 1
        if rule.patience and looks > 1:
            slots, point = _look_ahead(partial(look, target), slots, rule.patience, looks, keep, steps)
        else:
            point = look(target, slots)
        moving = bool((slots.t < steps).any())
        slots = slots._replace(kept=_remember(keep, slots, point))
        t = slots.t + 1
        if moving:  # those that won move too, so that one the judge refuses goes on where it stood
            x, state = rule.step(point, slots.state, slots.problem, slots.t)
            slots = slots._replace(x=x, state=state)
            if rule.over is not None:
                t = torch.where(rule.over(state), steps + 1, t)
        return slots._replace(t=t), point.judged

    def attack(target: A, problem: Problem) -> Outcome:
        ledger = _Ledger(problem, tries)
        slots: _Slots | None = None
        claims: _Slots | None = None
        refused: _Slots | None = None
        while True:
            slots, refused = _fill(slots, refused, target.tile)
            free = target.tile - _count(slots)
            if free and len(ledger.waiting):
                slots = join(slots, begin(*ledger.take(free)))
            if slots is not None and len(slots.row):
                slots, judged = visit(target, slots)
                slots, claims = _retire(slots, claims, ledger, judged, steps)
                target.tell(ledger.share(slots, steps))
            idle = not _count(slots) and not len(ledger.waiting) and not _count(refused)
            if claims is not None and (idle or len(claims.row) >= target.tile):
                refused, claims = join(refused, _judge(target, claims, ledger, steps)), None
            elif idle:
                return ledger.close()

    return attack


def _look_ahead(
    look: Callable[[_Slots], Point], slots: _Slots, patience: Patience, looks: int, keep: Keep, steps: int
) -> tuple[_Slots, Point]:
    """Many looks of each row in one pass, up to the first that changes anything: what a look at a time would come to."""
    rows = torch.arange(len(slots.row), device=slots.row.device)
    later = torch.arange(looks, device=rows.device).repeat(len(rows))
    many = pick(slots, rows.repeat_interleave(looks))
    t = many.t + later
    many = many._replace(t=t, x=where(later > 0, patience.onward(many.state, many.problem, t - 1), many.x))
    point = look(many)
    event = keep(many.problem, point, many.kept)[0] | patience.better(point, many.state) | (point.margin > 0) | (t >= steps)
    event |= ~torch.isfinite(point.margin) | (later == looks - 1)
    passed = event.view(-1, looks).to(torch.uint8).argmax(1)
    kept = slots.kept._replace(queries=slots.kept.queries + passed)
    at = rows * looks + passed
    return slots._replace(x=many.x[at], t=slots.t + passed, kept=kept), pick(point, at)


def _count(slots: _Slots | None) -> int:
    return 0 if slots is None else len(slots.row)


def _fill(slots: _Slots | None, refused: _Slots | None, tile: int) -> tuple[_Slots | None, _Slots | None]:
    """Tries that the judge sent back take free slots first."""
    free = tile - _count(slots)
    if refused is None or not free:
        return slots, refused
    index = torch.arange(len(refused.row), device=refused.row.device)
    return join(slots, pick(refused, index[:free])), (pick(refused, index[free:]) if len(index) > free else None)


def _retire(slots: _Slots, claims: _Slots | None, ledger: _Ledger, judged: bool, steps: int) -> tuple[_Slots, _Slots | None]:
    """Let go of tries that are done. Returns those under way, and the claims of success that wait for the judge."""
    over = slots.t > steps
    done = over | slots.kept.success if ledger.problem.stop else over
    if not bool(done.any()):
        return slots, claims
    leaving, slots = pick(slots, done), pick(slots, ~done)
    claimed = leaving.kept.success & (not judged)
    if bool(claimed.any()):
        claims = join(claims, pick(leaving, claimed))
    ledger.settle(pick(leaving, ~claimed))
    return (pick(slots, ~ledger.stale(slots)) if ledger.tries > 1 else slots), claims


def _remember(keep: Keep, slots: _Slots, point: Point) -> Kept:
    kept = slots.kept
    take, won, score = keep(slots.problem, point, kept)
    return Kept(
        x=where(take, point.x, kept.x),
        success=torch.where(take, won, kept.success),
        score=torch.where(take, score.to(kept.score.dtype), kept.score),
        queries=kept.queries + point.looks,
        faulty=kept.faulty | ~torch.isfinite(point.margin),
    )


def _judge(target: DecisionAccess, claims: _Slots, ledger: _Ledger, steps: int) -> _Slots:
    """Ask the judge about claimed successes. Those refused are failures again; the ones with steps left are returned to go on."""
    confirmed = target.reached(claims.problem.goal, claims.kept.x)
    kept = claims.kept
    score = torch.where(confirmed, kept.score, float("-inf"))
    claims = claims._replace(kept=kept._replace(success=confirmed, score=score, queries=kept.queries + 1))
    over = confirmed | (claims.t > steps)
    ledger.settle(pick(claims, over))
    return pick(claims, ~over & ~ledger.stale(claims))


def knowing(attack: Attack[S]) -> Attack[S]:
    """Look at the clean rows first: the attack finds their logits in `goal.reference`. One query a row."""

    def looked(target: S, problem: Problem) -> Outcome:
        logits = target.logits(problem.x)
        outcome = attack(target, problem._replace(goal=problem.goal._replace(reference=logits)))
        return outcome._replace(queries=outcome.queries + 1)

    return looked

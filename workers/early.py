"""Evaluations that end early: rows in blocks, and the questions that are answered as blocks come in.

A block is known by where it begins in the order drawn, and a row counts when all before it have counted: so neither processes nor kills nor
chance change after which row an evaluation ends. Rows that are broken are done sooner than rows that stand; to count whatever
is done first would make a model look weaker than it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparring.contract.betting import Bet, interval
from sparring.contract.early import Answer, Early, Question, Stopped
from sparring.contract.report import Finding
from sparring.workers.shard import UNBROKEN, Shard

_OVER = 8
"""A block is at most the eighth part of the rows before it: what is computed beyond the answer stays small."""


def blocks(rows: NDArray[np.int64], tile: int, most: int) -> list[NDArray[np.int64]]:
    """Rows in the order drawn, as blocks of whole tiles that grow; at most `most` rows each."""
    found, start = [], 0
    while start < len(rows):
        size = max(tile, min(most, start // _OVER) // tile * tile)
        found.append(rows[start : start + size])
        start += size
    return found


@dataclass
class _Asked:
    """A question and what rows have said of it."""

    question: Question
    bet: Bet
    before: tuple[bool, ...] | None
    void: bool
    """It compares with other rows, and cannot be answered."""
    moot: bool
    """It compares with the very model: as long as no row has changed there is nothing to wait for."""
    numbers: list[float] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        return self.void or (self.moot and all(number == 0.5 for number in self.numbers)) or self.bet.word != "open"


class Docket:
    """The questions of a job. Blocks may come in any order, and count in their own."""

    def __init__(self, early: Early, rows: int, blocks: int, model: str) -> None:
        """Of `rows` rows of the data in so many blocks; `model` is the sha256 of the one that is evaluated."""
        self._of, self._blocks, self._next, self._rows = rows, blocks, 0, 0
        self._waiting: dict[int, Shard] = {}
        self._asked = [_asked(question, rows, model) for question in early.questions]

    @property
    def closed(self) -> bool:
        """Every question is answered, or there are no more rows."""
        return self._next == self._blocks or (self._next > 0 and self._answered())

    @property
    def counted(self) -> int:
        """Blocks that count; once it is closed, no more will."""
        return self._next

    def _answered(self) -> bool:
        return all(each.answered and self._rows >= each.question.least for each in self._asked)

    def enter(self, block: int, done: Shard) -> None:
        """A block is done."""
        self._waiting[block] = done
        while not self.closed and self._next in self._waiting:
            self._count(self._waiting.pop(self._next))
            self._next += 1

    def _count(self, done: Shard) -> None:
        self._rows += len(done.rows)
        clean = done.clean == done.labels
        stood = [ended.broken_by == UNBROKEN for ended in done.ended]
        for each in (one for one in self._asked if not one.void):
            right = clean if each.question.threat is None else stood[each.question.threat]
            for row, good in zip(done.rows.tolist(), right.tolist(), strict=True):
                number = each.question.number(good, each.before[row] if each.before else None)
                each.numbers.append(number)
                each.bet.see(number)

    def stopped(self) -> Stopped:
        """How it ended."""
        answers = tuple(_answer(each) for each in self._asked)
        return Stopped(rows=self._rows, of=self._of, why="answered" if self._answered() else "rows", answers=answers)


def _asked(question: Question, rows: int, model: str) -> _Asked:
    before = question.before
    void = before is not None and before.rows != rows
    moot = before is not None and before.sha256 == model
    return _Asked(question, Bet(question.mean, question.alpha), before.stood if before and not void else None, void, moot)


def _answer(each: _Asked) -> Answer:
    question, bet = each.question, each.bet
    low, high = interval(each.numbers, question.alpha)
    low = max(low, bet.m) if bet.word == "holds" else low
    high = min(high, bet.m) if bet.word == "fails" else high
    mean = sum(each.numbers) / len(each.numbers) if each.numbers else 0.5
    ends = sorted((question.rate(low), question.rate(high)))
    return Answer(
        id=question.id,
        word=bet.word,
        at=max(bet.at, question.least) if bet.word != "open" else 0,
        value=question.rate(mean),
        low=ends[0],
        high=ends[1],
    )


def told(stopped: Stopped | None) -> Iterator[Finding]:
    """What a reader must know of a report on a part of the rows."""
    if stopped is not None and stopped.rows < stopped.of:
        yield Finding(
            code="ended_early",
            message=f"The evaluation ended after {stopped.rows:,} of {stopped.of:,} rows: all that was asked of it was answered.",
            hint="Figures are of these rows, which were drawn from the seed; the rules were judged by intervals that allow for it.",
            evidence={"rows": stopped.rows, "of": stopped.of},
        )

"""Where broken rows went, as a page shows it: from which class to which, and how far."""

from itertools import pairwise
from typing import NamedTuple

from sparring.contract.report import AttackResult, Move, Report, Score, ThreatResult
from sparring.contract.threat import Threat
from sparring.reports.text import figure

WIDEST = 20
"""Classes above which no grid is drawn."""
FIRST = 5
"""Moves that are listed beside a grid."""
ALONE = 25
"""Moves that are listed where there is none."""

SHIFTED = (
    "As it was: rows that the model mistook so before any attack; the worst case has what the attacks added too. In a grid the rows of "
    "a class stand in its line, each under what it is taken for in the worst case; beside it in small, where any, those as it was."
)
"""What the tables of confused classes mean."""

SPREAD = (
    "How far each broken row was moved, by the attack that broke it first. An attack that uses its whole radius has all its rows at "
    "the right end; rows far to the left of it fall to a smaller eps too."
)
"""What the histograms of distances mean."""


class Cell(NamedTuple):
    """Rows of one class that are taken for one class, itself perhaps."""

    clean: int
    worst: int
    heat: float
    """Share of its line in [0, 1]; 0 where the row is right."""


class Shift(NamedTuple):
    """Which class is taken for which, as it was and in the worst case of a threat."""

    threat: Threat
    top: tuple[tuple[Move, Score], ...]
    """The first moves, each with its share of the rows of its class in the worst case."""
    others: int
    """Rows that are wrong in the worst case, and not among them."""
    columns: tuple[int, ...]
    """What is predicted in a grid; none where there are too many classes."""
    grid: tuple[tuple[int, tuple[Cell, ...]], ...]
    """Each class with its cells."""


def shifts(report: Report) -> tuple[Shift, ...]:
    """A shift for every threat of which it is known, and under which any row is wrong."""
    return tuple(_shift(result) for result in report.threats if result.moves)


def _shift(result: ThreatResult) -> Shift:
    totals = {each.label: each.robust.total for each in result.classes}
    columns = sorted({*totals, *(move.prediction for move in result.moves)})
    drawn = len(columns) <= WIDEST and set(totals) >= {move.label for move in result.moves}
    first = result.moves[: FIRST if drawn else ALONE]
    top = tuple((move, Score(count=move.worst, total=max(move.worst, totals.get(move.label, 0)))) for move in first)
    others = max(0, result.worst.total - result.worst.count - sum(move.worst for move in first))
    return Shift(result.threat, top, others, tuple(columns) if drawn else (), _grid(result, columns) if drawn else ())


def _grid(result: ThreatResult, columns: list[int]) -> tuple[tuple[int, tuple[Cell, ...]], ...]:
    moves = {(move.label, move.prediction): move for move in result.moves}
    lines = []
    for each in result.classes:
        cells = []
        for prediction in columns:
            move = moves.get((each.label, prediction))
            if prediction == each.label:
                cells.append(Cell(each.clean.count, each.robust.count, 0.0))
            else:
                cells.append(Cell(move.clean, move.worst, move.worst / max(1, each.robust.total)) if move else Cell(0, 0, 0.0))
        lines.append((each.label, tuple(cells)))
    return tuple(lines)


def class_name(label: int) -> str:
    """A class, or what is none."""
    return "no class" if label < 0 else str(label)


class Spread(NamedTuple):
    """How far the rows that each attack was the first to break were moved, under one threat."""

    threat: Threat
    each: tuple[AttackResult, ...]
    """The attacks that were the first to break any."""

    @property
    def ends(self) -> tuple[float, ...]:
        """The ends of the parts, from 0 up to eps."""
        parts = len(self.each[0].distances)
        return tuple(self.threat.radius * at / parts for at in range(parts + 1))

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """Each part that holds a row: from, to, the rows of each attack."""
        found = zip(pairwise(self.ends), zip(*(each.distances for each in self.each), strict=True), strict=True)
        return tuple((figure(low), figure(high), *map(str, counts)) for (low, high), counts in found if any(counts))


def spreads(report: Report) -> tuple[Spread, ...]:
    """A spread for every threat of which it is known, and under which any row was broken."""
    found = (Spread(result.threat, tuple(each for each in result.each if sum(each.distances))) for result in report.threats)
    return tuple(spread for spread in found if spread.each)

"""rows.csv: one line per row and threat, written and read back."""

import csv
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from sparring.contract.report import ROW_COLUMNS, Report

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Row(NamedTuple):
    """What became of one row under one threat; the fields are those of `ROW_COLUMNS`."""

    row: int
    label: int
    clean_prediction: int
    norm: str
    eps: float
    broken: int
    """0 or 1; 1 for a row that was wrong from the start."""
    broken_by: str
    """Name of the attack, `clean` for a row that was wrong from the start, empty if nothing broke it."""
    prediction: int
    distance: float | None
    queries: int
    white: int | None
    """0 or 1: broken by an attack of that knowledge; None where none was run."""
    gray: int | None
    black: int | None


def safe(cell: object) -> object:
    """A text cell that no spreadsheet takes for a formula: one that begins like a formula gets a leading apostrophe. Numbers stay."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def write_csv(rows: Iterable[Row], file: TextIO) -> None:
    """Write a header and the rows to `file` (opened with newline="")."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(ROW_COLUMNS)
    writer.writerows([safe(cell) for cell in row] for row in rows)


class Outcomes(NamedTuple):
    """What became of every row under one threat, in the order of the rows."""

    rows: tuple[int, ...]
    right: tuple[bool, ...]
    """Right as it was."""
    stood: tuple[bool, ...]
    queries: tuple[int, ...]


def read_csv(file: Iterable[str]) -> tuple[Row, ...]:
    """The rows of a rows.csv. Raises ValueError naming the first line that is none."""
    reader = csv.reader(file)
    if tuple(next(reader, ())) != ROW_COLUMNS:
        raise ValueError(f"line 1 is not {','.join(ROW_COLUMNS)}")
    found = []
    for cells in reader:
        try:
            found.append(_row(dict(zip(ROW_COLUMNS, cells, strict=True))))
        except ValueError as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    return tuple(found)


def _row(cells: dict[str, str]) -> Row:
    row, label, clean, broken, prediction, queries = (
        int(cells[name]) for name in ("row", "label", "clean_prediction", "broken", "prediction", "queries")
    )
    white, gray, black = (int(cells[name]) if cells[name] else None for name in ("white", "gray", "black"))
    distance = float(cells["distance"]) if cells["distance"] else None
    by = cells["broken_by"]
    return Row(row, label, clean, cells["norm"], float(cells["eps"]), broken, by, prediction, distance, queries, white, gray, black)


def outcomes(rows: Sequence[Row], report: Report) -> tuple[Outcomes, ...]:
    """The rows threat by threat, in the order of the report.

    Raises:
        ValueError: the rows are not those of the report: their number or their counts differ, or those of two threats do.
    """
    if not report.threats:
        raise ValueError("the report has no threats")
    total = report.clean.total
    if len(rows) != total * len(report.threats):
        raise ValueError(f"there are {len(rows)} lines, but {total} rows under {len(report.threats)} threats")
    found = tuple(_outcomes(rows[at * total : (at + 1) * total], report, at) for at in range(len(report.threats)))
    if len({each.rows for each in found}) > 1:
        raise ValueError("not every threat has the same rows")
    return found


def _outcomes(rows: Sequence[Row], report: Report, at: int) -> Outcomes:
    result = report.threats[at]
    found = Outcomes(
        tuple(row.row for row in rows),
        tuple(row.clean_prediction == row.label for row in rows),
        tuple(not row.broken for row in rows),
        tuple(row.queries for row in rows),
    )
    if any((row.norm, row.eps) != (result.threat.norm, result.threat.radius) for row in rows):
        raise ValueError(f"lines of threat {at + 1} name another threat")
    for what, counted, said in (("right", sum(found.right), report.clean.count), ("unbroken", sum(found.stood), result.worst.count)):
        if counted != said:
            raise ValueError(f"under threat {at + 1} {counted} rows are {what}, but the report says {said}")
    return found

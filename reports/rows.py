"""rows.csv: one line per row and threat."""

import csv
from collections.abc import Iterable
from typing import NamedTuple, TextIO

from sparring.contract.report import ROW_COLUMNS

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

"""Measured figures in the pages of docs/: tables in Markdown, each between two marks of its own."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """One row of a table of measurements that were repeated over seeds."""

    name: str
    figures: tuple[Sequence[float], ...]
    """Of each column, one for each seed."""
    reference: tuple[str, ...] = ()
    """What another program measured, in each column; empty where there is none."""


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], lines: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    return "\n".join([line(head), f"|{' --- |' * len(head)}", *map(line, lines)]) + "\n"


def spread(figures: Sequence[float]) -> str:
    """The mean, and where there are several the standard deviation over seeds."""
    mean = f"{statistics.mean(figures):.1f}"
    return f"{mean} ± {statistics.stdev(figures):.1f}" if len(figures) > 1 else mean


def measurements(columns: Sequence[str], rows: Sequence[Measured]) -> str:
    """A table of rows that were measured over seeds; columns for which references are known have them beside each figure."""
    told = [any(row.reference[at : at + 1] != ("",) for row in rows if row.reference) for at in range(len(columns))]
    head = ["", *(name for column, has in zip(columns, told, strict=True) for name in ((column, "reference") if has else (column,)))]
    return table(head, (beside(row, told) for row in rows))


def beside(row: Measured, told: Sequence[bool]) -> list[str]:
    """The cells of a row: each figure, then its reference where the column has them."""
    known = row.reference or ("",) * len(row.figures)
    cells = zip(row.figures, known, told, strict=True)
    return [f"`{row.name}`", *(cell for figures, other, has in cells for cell in ((spread(figures), other) if has else (spread(figures),)))]


def between(page: Path, name: str) -> str:
    """What stands between the marks of this name. Raises ValueError where the page has none."""
    return _parted(page, name)[1]


def write(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of this name. Raises ValueError where the page has none."""
    before, _, after = _parted(page, name)
    page.write_text(before + text + after)


def _parted(page: Path, name: str) -> tuple[str, str, str]:
    """What stands before, between and after, the marks themselves outside."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = page.read_text()
    if not text.count(begin) == text.count(end) == 1:
        raise ValueError(f"{page} needs one line {begin.strip()} and, below it, one {end.strip()}: that is where the tables go")
    before, _, rest = text.partition(begin)
    within, _, after = rest.partition(end)
    return before + begin, within, end + after

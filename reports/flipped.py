"""Rows that flipped from one report to another, as they may be looked at: pictures, and what both models said."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sparring.reports import text
from sparring.reports.compare import Compared, Told
from sparring.reports.pictures import why_none
from sparring.reports.rows import Row

MOST = 12
"""Pictures of one threat in one direction."""
BYTES = 8 << 20
"""Of all pictures in a page."""
LISTED = 100
"""Rows of one threat in one direction that are named."""


class Flipped(NamedTuple):
    """A row that flipped, with PNG files."""

    row: int
    label: int
    before: str
    """`3`, `3, stands`, or `3 → 5 by pgd, distance 0.031`."""
    after: str
    original: bytes
    perturbation: bytes | None
    """Absent where one of the models is wrong about the row as it is."""
    adversarial: bytes | None


class Flips(NamedTuple):
    """The rows of one threat, or as they are, that flipped in one direction."""

    what: str
    lost: bool
    rows: tuple[int, ...]
    shown: tuple[Flipped, ...]

    @property
    def word(self) -> str:
        """Which way."""
        return "lost" if self.lost else "won"

    @property
    def listed(self) -> str:
        """The numbers of the rows."""
        more = len(self.rows) - LISTED
        return ", ".join(map(str, self.rows[:LISTED])) + (f" and {text.number(more)} more" if more > 0 else "")


def flipped(before: Told, after: Told, found: Sequence[Compared]) -> tuple[Flips, ...]:
    """All that flipped, with at most MOST pictures each and BYTES in all.

    A lost row is shown as it breaks the second model, a won one as it broke the first.

    Raises:
        Unreadable: a pictures.zip is damaged.
    """
    left, made = BYTES, []
    for each in found:
        for lost, rows in ((True, each.lost), (False, each.won)):
            shown: list[Flipped] = []
            for one in islice(_looked_at(before, after, each, rows, lost=lost), MOST):
                left -= sum(len(png or b"") for png in (one.original, one.perturbation, one.adversarial))
                if left < 0:
                    break
                shown.append(one)
            if rows:
                made.append(Flips(each.what, lost, rows, tuple(shown)))
    return tuple(made)


def remark(before: Told, after: Told, flips: Sequence[Flips]) -> str:
    """What is to be said of the pictures: which they are, or why there are none."""
    if not flips:
        return ""
    bare = next((told for told in (after, before) if told.album is None), None)
    if not any(each.shown for each in flips):
        return why_none(bare.report.data) if bare else "No pictures were kept of these rows."
    some = f" Of the {'second' if bare is after else 'first'} none were kept." if bare else ""
    return (
        "Left to right: the row as it is, the perturbation amplified (mid-grey is no change), the row with the perturbation. "
        "A lost row is shown as it breaks the second model, a won one as it broke the first."
        f"{some} At most {MOST} are shown of one threat in one direction."
    )


def _looked_at(before: Told, after: Told, each: Compared, rows: Sequence[int], *, lost: bool) -> Iterator[Flipped]:
    """The rows that there are pictures of."""
    album = (after if lost else before).album
    if album is None:
        return
    at = each.threats or (0, 0)
    lines = [_lines(told, threat) for told, threat in zip((before, after), at, strict=True)]
    for row in rows:
        was, now = (own[row] for own in lines)
        broken = now if lost else was
        as_it_is = each.threats is None or broken.broken_by == "clean"
        original = album.original(row)
        pictures = None if as_it_is else album.broken(at[1 if lost else 0], row)
        if original and (as_it_is or pictures):
            first, second = (_class(line.clean_prediction) if each.threats is None else _said(line) for line in (was, now))
            yield Flipped(row, broken.label, first, second, original, *(pictures or (None, None)))


def _lines(told: Told, threat: int) -> dict[int, Row]:
    total = told.report.clean.total
    return {line.row: line for line in told.lines[threat * total : (threat + 1) * total]}


def _said(line: Row) -> str:
    if not line.broken:
        return f"{_class(line.clean_prediction)}, stands"
    if line.broken_by == "clean":
        return f"{_class(line.clean_prediction)}, wrong as it is"
    found = f"{_class(line.clean_prediction)} → {_class(line.prediction)}"
    return f"{found} by {line.broken_by}, distance {text.figure(line.distance)}"


def _class(predicted: int) -> str:
    return str(predicted) if predicted >= 0 else "no finite answer"

"""Two reports row by row, and the statistics for it: McNemar's exact test, paired intervals, a median's order statistics."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, takewhile
from math import ceil, exp, inf, lgamma, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

from sparring.contract.jobs import Evaluate
from sparring.contract.report import Report, Score
from sparring.contract.verdict import Flips, suite_version, threat_identity
from sparring.reports import text
from sparring.reports.pictures import Album
from sparring.reports.rows import Outcomes, Row

CONFIDENCE = 0.95


class Incomparable(ValueError):
    """Two reports whose numbers mean different things; says in what they differ."""


class Told(NamedTuple):
    """A report, and what became of its rows threat by threat."""

    report: Report
    rows: tuple[Outcomes, ...]
    lines: tuple[Row, ...] = ()
    """Those of rows.csv: the rows under the first threat, then those under the next."""
    album: Album | None = None
    """What was kept to be looked at."""


class Compared(NamedTuple):
    """Two reports under one threat, or on the rows as they are."""

    what: str
    threats: tuple[int, int] | None
    """Index of the threat in either report; None for the rows as they are."""
    before: Score
    after: Score
    flips: Flips
    lost: tuple[int, ...]
    """Rows that were right before and are not now."""
    won: tuple[int, ...]


def compared(before: Told, after: Told) -> tuple[Compared, ...]:
    """Two reports: the rows as they are, then each threat.

    Raises:
        Incomparable: data, rows, attacks or threats are not the same in both.
    """
    _check_alike(before.report, after.report)
    if not before.rows[0].rows:
        raise Incomparable("rows: there are none")
    if before.rows[0].rows != after.rows[0].rows:
        raise Incomparable("rows: they are not the same ones of the data, since one ended early")
    rows = before.rows[0].rows
    found = [_compared("clean", None, before.rows[0].right, after.rows[0].right, rows)]
    theirs = [threat_identity(after.report, result.threat) for result in after.report.threats]
    for at, result in enumerate(before.report.threats):
        own = threat_identity(before.report, result.threat)
        if own not in theirs:
            nearest = min(theirs, key=lambda one: (one.norm != own.norm, abs(one.eps - own.eps)))
            raise Incomparable(f"{text.threat_text(result.threat)} is not among the threats of the second: {own.difference(nearest)}")
        other = theirs.index(own)
        found.append(_compared(text.threat_text(result.threat), (at, other), before.rows[at].stood, after.rows[other].stood, rows))
    if len(theirs) > len(before.report.threats):
        raise Incomparable(f"the second has {len(theirs)} threats, the first {len(before.report.threats)}")
    return tuple(found)


def _check_alike(one: Report, other: Report) -> None:
    if not (isinstance(one.job, Evaluate) and isinstance(other.job, Evaluate)):
        raise Incomparable("one of them is no evaluation")
    facts = {
        "data": (one.data.sha256, other.data.sha256),
        "rows": (one.clean.total, other.clean.total),
        "attacks": (suite_version(one.job), suite_version(other.job)),
    }
    if different := [f"{name} {first} against {second}" for name, (first, second) in facts.items() if first != second]:
        raise Incomparable(", ".join(different))


def _compared(what: str, threats: tuple[int, int] | None, was: Sequence[bool], now: Sequence[bool], rows: Sequence[int]) -> Compared:
    lost = tuple(row for row, a, b in zip(rows, was, now, strict=True) if a and not b)
    won = tuple(row for row, a, b in zip(rows, was, now, strict=True) if b and not a)
    before, after = (Score(count=sum(each), total=len(each)) for each in (was, now))
    return Compared(what, threats, before, after, flips(was, now), lost, won)


def flips(before: Sequence[bool], after: Sequence[bool], confidence: float = CONFIDENCE) -> Flips:
    """The same rows before and after.

    The interval is Wald's with one more row that flipped each way (Bonett and Price 2012), which keeps its level where few rows flip.

    Raises:
        ValueError: the lengths differ, or there are no rows.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} rows before and {len(after)} after cannot be paired")
    n = len(before)
    lost = sum(was and not now for was, now in zip(before, after, strict=True))
    won = sum(now and not was for was, now in zip(before, after, strict=True))
    fell, rose = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = _z(confidence) * sqrt((fell + rose - (fell - rose) ** 2) / (n + 2))
    return Flips(
        rows=n,
        lost=lost,
        won=won,
        drop=(lost - won) / n,
        interval=(max(-1.0, fell - rose - half), min(1.0, fell - rose + half)),
        p=mcnemar(lost, won),
    )


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947): under it a row that flips does so either way with probability 1/2."""
    tail = sum(islice(_throws(lost + won), min(lost, won) + 1))
    return min(1.0, 2 * tail)


def median(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Lower end, median, upper end: the interval lies between order statistics, whatever the values are drawn from.

    Values may be infinite. Where there are too few of them the ends are 0 and infinity.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is no median of nothing")
    ranked, n = sorted(values), len(values)
    share = (1 - confidence) / 2
    out = sum(1 for _ in takewhile(lambda total: total <= share, accumulate(_throws(n))))
    middle = ranked[(n - 1) // 2]
    return (ranked[out - 1], middle, ranked[n - out]) if out else (0.0, middle, inf)


def enough(rate: float, confidence: float = CONFIDENCE) -> int | None:
    """How many rows, all of them right, bring the lower end of Wilson's interval to a rate; None for 1, which no number does."""
    return ceil(_z(confidence) ** 2 * rate / (1 - rate)) if rate < 1 else None


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _throws(n: int) -> Iterator[float]:
    """P(B = 0), P(B = 1) …, B the heads among n fair throws."""
    whole = lgamma(n + 1) - n * log(2)
    return (exp(whole - lgamma(k + 1) - lgamma(n - k + 1)) for k in range(n + 1))

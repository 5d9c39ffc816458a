"""Statistics of rows that are right before and after, and of medians: McNemar's exact test, paired intervals, order statistics."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, takewhile
from math import ceil, exp, inf, lgamma, log, sqrt
from statistics import NormalDist

from sparring.contract.verdict import Flips

CONFIDENCE = 0.95


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

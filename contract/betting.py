"""The mean of numbers in [0, 1] by betting: it may be looked at after every number, and the looking may decide when to stop.

A gambler begins with a capital of 1 and bets before each number that the mean is not m. Where it is m the capital is a martingale and
reaches 1/alpha with a probability of at most alpha (Ville), whenever one looks. So what makes the gambler that rich is not the mean.
Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86(1): the hedged capital of
their Theorem 3 with theta = 1/2, the bets those of their appendix B.3 (aGRAPA) with c = 1/2.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from math import inf, log, log1p
from typing import Literal

CAP = 0.5
"""Share of the capital that is risked at most (their c)."""
_FINE = 1e-4
"""How exactly the ends of an interval are found."""

Word = Literal["holds", "fails", "open"]


class Bet:
    """Is the mean at least `m`? Takes one number after another."""

    def __init__(self, m: float, alpha: float) -> None:
        """Each of the two answers is wrong with a probability of at most alpha / 2. Raises ValueError for m or alpha out of range."""
        if not 0 <= m <= 1 or not 0 < alpha < 1:
            raise ValueError(f"m is in [0, 1] and alpha between 0 and 1, not {m} and {alpha}")
        self.m = m
        self.seen = 0
        self.word: Word = "open"
        """What was shown first; it stays, for whoever wins once may stop."""
        self.at = 0
        """After how many numbers it was."""
        self._rich = log(2 / alpha)  # each of the two gamblers begins with half
        self._most_up, self._most_down = (CAP / m if m else inf), (CAP / (1 - m) if m < 1 else inf)
        self._up = self._down = 0.0  # logarithms of what the two have made of theirs
        self._sum, self._squares = 0.5, 0.25  # as if a 1/2 had been seen, with a variance of 1/4
        self._mean, self._variance = 0.5, 0.25

    def see(self, x: float) -> None:
        """The next number, in [0, 1]."""
        gap = self._mean - self.m
        stake = gap / (self._variance + gap * gap)
        if stake > 0:
            self._up += log1p(min(stake, self._most_up) * (x - self.m))
        elif stake < 0:
            self._down += log1p(min(-stake, self._most_down) * (self.m - x))
        self.seen += 1
        self._sum += x
        self._mean = self._sum / (self.seen + 1)
        self._squares += (x - self._mean) ** 2
        self._variance = self._squares / (self.seen + 1)
        if self.word == "open" and max(self._up, self._down) >= self._rich:
            self.word, self.at = ("holds" if self._up > self._down else "fails"), self.seen


def bet(numbers: Iterable[float], m: float, alpha: float) -> Bet:
    """One that has seen the numbers, or as many as it took."""
    found = Bet(m, alpha)
    for x in numbers:
        found.see(x)
        if found.word != "open":
            break
    return found


def interval(numbers: Sequence[float], alpha: float) -> tuple[float, float]:
    """Ends of the confidence sequence for the mean after these numbers: every m that no bet has ruled out, at any time until now.

    It is consistent with `Bet`: a mean that holds lies at or below the lower end, one that fails above the upper end.
    """
    middle = sum(numbers) / len(numbers) if numbers else 0.5
    return _edge(numbers, alpha, 0.0, middle, "holds"), _edge(numbers, alpha, 1.0, middle, "fails")


def _edge(numbers: Sequence[float], alpha: float, out: float, middle: float, word: Word) -> float:
    """Between `out` and the mean, where means begin that are not ruled out; on the side of those that are."""
    inside = middle
    while abs(out - inside) > _FINE:
        half = (out + inside) / 2
        if bet(numbers, half, alpha).word == word:
            out = half
        else:
            inside = half
    return out


def least(m: float, alpha: float, most: int = 100_000) -> int | None:
    """How many numbers that are all 1 show that the mean is at least m; None where even `most` of them do not."""
    found = bet(repeat(1.0, most), m, alpha)
    return found.at if found.word == "holds" else None

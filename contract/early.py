"""Evaluations that end as soon as what was asked of them is answered."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sparring.contract.base import Frozen
from sparring.contract.betting import Word
from sparring.contract.fields import Ident, Samples, Sha256, Share
from sparring.contract.quantity import Listed, NotBool, NotEmpty

ALPHA = 0.05
"""Half of it for each of the two wrong answers, as the ends of a 95 % interval have it."""


class Stood(Frozen):
    """Which of the first rows of some data were right, or stood, under some model."""

    sha256: Sha256
    """Of the model."""
    rows: Annotated[int, Field(ge=1, le=100_000_000)]
    right: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    """A bit for each row from the first, in hexadecimal, the first row's the highest: 1 where it was right, or stood."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.right) != -(-self.rows // 4):
            raise ValueError(f"right has {len(self.right)} digits, but {self.rows} rows need {-(-self.rows // 4)}")
        return self

    @property
    def stood(self) -> tuple[bool, ...]:
        """Row by row."""
        bits = f"{int(self.right, 16):0{4 * len(self.right)}b}"
        return tuple(bit == "1" for bit in bits[: self.rows])

    @property
    def count(self) -> int:
        """Rows that were right, or stood."""
        return (int(self.right, 16) >> (4 * len(self.right) - self.rows)).bit_count()


def packed(stood: Iterable[bool]) -> str:
    """A bit for each row, as `Stood.right` holds them."""
    bits = "".join("1" if each else "0" for each in stood)
    bits += "0" * (-len(bits) % 4)
    return f"{int(bits, 2):0{len(bits) // 4}x}"


class Question(Frozen):
    """Does a rate of the population reach a limit? Asked of rows as they come."""

    id: Ident
    threat: Annotated[int, Field(ge=0), NotBool] | None = None
    """The worst case of this threat of the job, from 0; unless given, the rows as they are."""
    min: Share | None = None
    """Is the rate of rows that are right at least this?"""
    max_drop: Share | None = None
    """Has it dropped by at most this, row by row?"""
    before: Stood | None = None
    """Against what."""
    least: Samples = 1
    """It is not answered before so many rows."""
    alpha: Annotated[float, Field(gt=0, lt=1), NotBool] = ALPHA
    """Each of the two answers is wrong with a probability of at most half of this."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.min is None) == (self.max_drop is None):
            raise ValueError("give either min or max_drop: a question asks one thing")
        if (self.max_drop is None) != (self.before is None):
            raise ValueError("max_drop and before go together")
        return self

    @property
    def mean(self) -> float:
        """The same question of the mean of `number`: is it at least this?"""
        return self.min if self.min is not None else (1 - (self.max_drop or 0.0)) / 2

    def number(self, right: bool, before: bool | None) -> float:
        """What a row adds, in [0, 1]: of a drop 0 where it was lost, 1 where it was won, 1/2 where it is as `before`."""
        return float(right) if before is None else (1 + right - before) / 2

    def rate(self, mean: float) -> float:
        """A mean of `number` as the rate, or the drop, that is asked about."""
        return mean if self.before is None else 1 - 2 * mean


class Early(Frozen):
    """End as soon as every question is answered. Rows count in the order drawn from the seed, each when those before it are done."""

    kind: Literal["early"] = "early"
    questions: Annotated[tuple[Question, ...], Field(max_length=200), NotEmpty(), Listed]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [question.id for question in self.questions]
        if twice := [name for at, name in enumerate(ids) if name in ids[:at]]:
            raise ValueError(f"questions: {twice[0]} is asked twice")
        return self


class Answer(Frozen):
    """What became of a question."""

    id: Ident
    word: Word
    """`open` where the rows ran out before it was answered."""
    at: Annotated[int, Field(ge=0)]
    """Answered after so many rows, in the order drawn; 0 where it is open."""
    value: float
    """The rate, or the drop, on the rows that were evaluated."""
    low: float
    high: float
    """Ends of the confidence sequence after them, for the population."""


class Stopped(Frozen):
    """How an evaluation ended that was to end early."""

    rows: Annotated[int, Field(ge=0)]
    """Evaluated: whole blocks, in the order drawn."""
    of: Annotated[int, Field(ge=0)]
    """That there were to evaluate."""
    why: Literal["answered", "rows"]
    """Every question is answered, or the rows ran out."""
    answers: tuple[Answer, ...]

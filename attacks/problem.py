"""What an attack is asked (Problem), what it learns at a point (Point), and what it answers (Outcome)."""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import Ball


class Goal(NamedTuple):
    """`labels` (B,) int64: the true classes to leave, or with `targeted` the classes to reach."""

    labels: Tensor
    targeted: bool = False

    def margin(self, logits: Tensor) -> Tensor:
        """(B,): how far the goal is passed; the goal is reached where it is above 0. A tie is not a success."""
        own = logits.gather(1, self.labels[:, None]).squeeze(1)
        others = logits.scatter(1, self.labels[:, None], float("-inf")).amax(1)
        return own - others if self.targeted else others - own

    def reached(self, logits: Tensor) -> Tensor:
        """(B,) bool, from logits (B, K)."""
        return self.margin(logits) > 0

    def select(self, index: Tensor) -> "Goal":
        """The same for some of the rows."""
        return Goal(self.labels[index], self.targeted)


class Problem(NamedTuple):
    """A shard of rows to break. `key` (B,) seeds every draw of a row; see `sparring.attacks.random`."""

    goal: Goal
    ball: Ball
    key: Tensor
    stop: bool = True
    """Verdict mode: a row is left alone once it is broken. Otherwise every row runs the full course (crafting)."""

    def select(self, index: Tensor) -> "Problem":
        """The same for some of the rows."""
        return Problem(self.goal.select(index), self.ball.select(index), self.key[index], self.stop)

    def fork(self, label: int) -> "Problem":
        """The same with other draws."""
        return self._replace(key=random.fork(self.key, label))


class Point(NamedTuple):
    """All that one visit taught about x (B, …)."""

    x: Tensor
    loss: Tensor
    """(B,), to be climbed."""
    margin: Tensor
    """(B,): above 0 where the goal is reached."""
    grad: Tensor | None = None
    """d loss / d x (B, …), where a slope was asked for."""
    judged: bool = False
    """The margin is the judge's own word, so that a success needs no second look."""

    def select(self, index: Tensor) -> "Point":
        """The same for some of the rows."""
        grad = None if self.grad is None else self.grad[index]
        return Point(self.x[index], self.loss[index], self.margin[index], grad, self.judged)


class Outcome(NamedTuple):
    """What became of each row: the kept point, whether the judge calls it a success, its score, and the queries spent."""

    x: Tensor
    success: Tensor
    """(B,) bool."""
    score: Tensor
    """(B,): margin of a success, loss of a failure; only compared between outcomes of equal success."""
    queries: Tensor
    """(B,) int64, the judge's included."""
    faulty: Tensor
    """(B,) bool: the model answered NaN or infinity at some point visited, and the row's attack may have come to nothing."""

    def better_of(self, other: "Outcome", index: Tensor) -> "Outcome":
        """Rows `index` replaced by `other`'s where that succeeded and this did not, or scored higher; queries add up."""
        mine, score = self.success[index], self.score[index]
        take = (other.success & ~mine) | ((other.success == mine) & (other.score > score))
        taken = index[take]
        self.x[taken], self.success[taken], self.score[taken] = other.x[take], other.success[take], other.score[take]
        self.queries[index] += other.queries
        self.faulty[index] |= other.faulty
        return self


A_contra = TypeVar("A_contra", contravariant=True)


class Attack(Protocol[A_contra]):
    """An attack is a function; what it may see of the model is the type of its target."""

    def __call__(self, target: A_contra, problem: Problem) -> Outcome:
        """Attack every row of the problem."""
        ...


def survivors(outcome: Outcome) -> Tensor:
    """Indices of rows not yet broken."""
    return torch.nonzero(~outcome.success).flatten()

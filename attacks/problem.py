"""What an attack is asked (Problem), what it learns at a point (Point), and what it answers (Outcome)."""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import Ball
from sparring.attacks.rows import pick


class Goal(NamedTuple):
    """`labels` (B,) int64: the true classes to leave, or with `targeted` the classes to reach."""

    labels: Tensor
    targeted: bool = False
    toward: Tensor | None = None
    """(B,) int64: the class an untargeted loss may single out; leaving for any other class is a success all the same."""
    reference: Tensor | None = None
    """(B, K): logits of the clean rows, for attacks that begin by looking at them."""

    def margin(self, logits: Tensor) -> Tensor:
        """(B,): how far the goal is passed; the goal is reached where it is above 0. A tie is not a success."""
        own = logits.gather(1, self.labels[:, None]).squeeze(1)
        others = logits.scatter(1, self.labels[:, None], float("-inf")).amax(1)
        return own - others if self.targeted else others - own

    def reached(self, logits: Tensor) -> Tensor:
        """(B,) bool, from logits (B, K)."""
        return self.margin(logits) > 0


class Problem(NamedTuple):
    """A shard of rows to break. `key` (B,) seeds every draw of a row; see `sparring.attacks.random`."""

    goal: Goal
    ball: Ball
    key: Tensor
    attempt: Tensor
    """(B,) int64: which of an attack's runs on this row; 0 is the first."""
    stop: bool = True
    """Verdict mode: a row is left alone once it is broken. Otherwise every row runs the full course (crafting)."""
    name: Tensor | None = None
    """(B,) int64: whose try a visit belongs to; for probes that remember where they were."""
    other: Tensor | None = None
    """(B, …): for each row another one of the data, by its label one that reaches the goal; where a walk may begin."""
    moving: Tensor | None = None
    """(B,) bool: whose course goes on from the point that is looked at; where slopes cost queries, the others need none."""

    @property
    def x(self) -> Tensor:
        """The clean rows (B, …)."""
        return self.ball.centre

    def select(self, index: Tensor) -> "Problem":
        """The same for some of the rows."""
        return pick(self, index)

    def fork(self, label: int | Tensor) -> "Problem":
        """The same with other draws."""
        return self._replace(key=random.fork(self.key, label))


def problem(goal: Goal, ball: Ball, key: Tensor, *, stop: bool = True) -> Problem:
    """A problem before any attempt."""
    return Problem(goal, ball, key, torch.zeros_like(goal.labels), stop)


class Point(NamedTuple):
    """All that one visit taught about x (B, …)."""

    x: Tensor
    loss: Tensor
    """(B,), to be climbed."""
    margin: Tensor
    """(B,): above 0 where the goal is reached."""
    grad: Tensor | None = None
    """d loss / d x (B, …), where a slope was asked for."""
    looks: int | Tensor = 1
    """Queries that the visit took of every row, or of each: (B,) int64."""
    judged: bool = False
    """The margin is the judge's own word, so that a success needs no second look."""


class Outcome(NamedTuple):
    """What became of each row: the kept point, whether the judge calls it a success, its score, and the queries spent."""

    x: Tensor
    success: Tensor
    """(B,) bool."""
    score: Tensor
    """(B,): what the attack kept points by; only compared between outcomes of equal success."""
    queries: Tensor
    """(B,) int64, the judge's included; of the runs up to the one that succeeded, or of all."""
    faulty: Tensor
    """(B,) bool: the model answered NaN or infinity at some point visited, and the row's attack may have come to nothing."""


A_contra = TypeVar("A_contra", contravariant=True)


class Attack(Protocol[A_contra]):
    """An attack is a function; what it may see of the model is the type of its target."""

    def __call__(self, target: A_contra, problem: Problem) -> Outcome:
        """Attack every row of the problem."""
        ...

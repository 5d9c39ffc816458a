"""What an attacker may ask of a model, as types; and the white-box target that answers everything."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from sparring.attacks.chain import Plan
from sparring.attacks.problem import Goal
from sparring.attacks.rows import where
from sparring.attacks.windows import Windows, plan

_AHEAD = 24
"""Looks ahead at most. One row in a hundred to ten improves at a look, and those after it are in vain."""

Rank = Callable[[Tensor, Tensor], Tensor]
"""(loss (B,), its gradient (B, …)) -> (B,)."""


class Near(Protocol):
    """Scores with a memory: the quicker the less a row differs from the best of those asked before under its name."""

    def __call__(self, name: Tensor, x: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (B, K) of x (B, …); `name` (B,) int64 says whose they are. The best is that of largest `worth(logits)` (B,)."""
        ...


Decide = Callable[[Goal, Tensor], Tensor]
"""(goal, x (B, …)) -> (B,) bool: whether the decision on x reaches the goal."""


class DecisionAccess(Protocol):
    """Only decisions: the predicted class. They are the judge's own."""

    @property
    def tile(self) -> int:
        """Rows of one pass."""
        ...

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes (B,) int64 of x (B, …)."""
        ...

    def reached(self, goal: Goal, x: Tensor) -> Tensor:
        """(B,) bool: whether the decision on x (B, …) reaches the goal. Where the judge has scores, a tie does not."""
        ...

    def tell(self, share: float) -> None:
        """An attack says how much of its course is behind it, from 0 to 1."""
        ...


@runtime_checkable
class QuickAccess(DecisionAccess, Protocol):
    """Decisions, and a quicker way to most of them."""

    def quick(self) -> Decide | None:
        """Decisions that may differ from the judge's very near the boundary; None where the judge is as quick."""
        ...


class ScoreAccess(DecisionAccess, Protocol):
    """Scores as well."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        ...


class NearAccess(ScoreAccess, Protocol):
    """Scores that cost nothing but time: what was asked before may serve again, and what may be asked next may be asked along."""

    def near(self, like: Tensor) -> Near:
        """Scores as `logits` gives them, bit for bit, of rows shaped as `like` (B, …); for one attack, which owns the memory."""
        ...

    def ahead(self, rows: int) -> int:
        """How many looks of each of so many rows one pass has room for, at least 1."""
        ...


class GradientAccess(ScoreAccess, Protocol):
    """Slopes as well."""

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At x (B, …): logits (B, K), each row's `loss(logits)` (B,), and that loss's gradient (B, …)."""
        ...

    def slope_of_least(self, losses: Callable[[Tensor], Tensor], rank: Rank, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At x (B, …): logits (B, K), that one of each row's `losses(logits)` (B, J) whose rank is the least, and its gradient.

        Of losses that rank alike it is the first.
        """
        ...


@dataclass
class Spent:
    """Rows passed through the model, padding not counted."""

    forwards: int = 0
    backwards: int = 0


class Target:
    """White-box access to a model. `judge` is the original and decides; `search` is a copy prepared for speed.

    Slopes come from `search` too, unless there is a `climber`: another copy, that may compute in fewer digits.

    A pass has `tile` rows, or fewer but a multiple of `granule`, padded with its own first row: floating-point results
    depend on the shape of a batch. With a granule at which they are known not to, a row's results depend on the row alone.
    """

    def __init__(self, judge: nn.Module, search: nn.Module, tile: int, climber: nn.Module | None = None, granule: int = 0) -> None:
        """The modules map (B, …) float32 to logits (B, K); parameters of the copies need no gradient. Granule 0 is the tile."""
        self.judge = judge
        self.search = search
        self.climber = climber
        self.spent = Spent()
        self.granule = granule or tile
        self._tile = tile
        self._plan: tuple[nn.Module, torch.Size, Plan | None] | None = None
        self.tell: Callable[[float], None] = lambda share: None
        """Where progress is told; replaced by whoever wants to hear."""

    def exact(self) -> "Target":
        """The same, every slope from `search`."""
        other = copy.copy(self)
        other.climber = None
        return other

    @property
    def tile(self) -> int:
        """Rows of one pass."""
        return self._tile

    def labels(self, x: Tensor) -> Tensor:
        """The judge's predictions (B,)."""
        return self.verdict(x).argmax(1)

    def reached(self, goal: Goal, x: Tensor) -> Tensor:
        """(B,) bool: the judge's word; a tie is not a success."""
        return goal.reached(self.verdict(x))

    @torch.no_grad()
    def verdict(self, x: Tensor) -> Tensor:
        """The judge's logits (B, K)."""
        self.spent.forwards += len(x)
        return torch.cat([self.judge(part)[:count] for part, count in self._tiles(x)])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The search copy's logits (B, K)."""
        self.spent.forwards += len(x)
        return torch.cat([self.search(part)[:count] for part, count in self._tiles(x)])

    def quick(self) -> Decide | None:
        """The search copy's decisions, where it is not the judge itself."""
        return None if self.search is self.judge else lambda goal, x: goal.reached(self.logits(x))

    def near(self, like: Tensor) -> Near:
        """Scores of the search copy by windows, where it lends itself to that, else in full."""
        shape = like.shape[1:]
        if self._plan is None or self._plan[0] is not self.search or self._plan[1] != shape:
            self._plan = self.search, shape, plan(self.search, like, self._tile, self.granule)
        found = self._plan[2]
        if found is None:
            return lambda name, x, worth: self.logits(x)
        windows = Windows(found, like, self._tile, self.granule)

        def look(name: Tensor, x: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
            self.spent.forwards += len(x)
            return windows(name, x, worth)

        return look

    def ahead(self, rows: int) -> int:
        """How many looks of each of so many rows there is room for, but not so many that most of them will be in vain."""
        found = self._plan[2] if self._plan else None
        return max(1, min(_AHEAD, (found.room if found else self._tile) // rows))

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), losses (B,) and gradient (B, …) from the search copy; at most one tile of rows."""
        return self.slope_of_least(lambda logits: loss(logits)[:, None], lambda loss, grad: loss, x)

    def slope_of_least(self, losses: Callable[[Tensor], Tensor], rank: Rank, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), loss (B,) and gradient (B, …) from one forward and J backward passes; at most one tile of rows.

        Two gradients are held at a time, however many losses there are.
        """
        if len(x) > self._tile:
            raise ValueError(f"a slope takes at most one tile of {self._tile} rows, not {len(x)}")
        part, count = next(self._tiles(x))
        part = part.detach().requires_grad_()
        with torch.enable_grad():
            logits = (self.climber or self.search)(part)
            columns = losses(logits[:count]).unbind(1)
        for at, column in enumerate(columns):
            grad, loss = self._grad(column, part, last=at + 1 == len(columns))[:count], column.detach()
            place = rank(loss, grad)
            if at == 0:
                best, slope, least = loss, grad, place
            else:
                nearer = place < least
                best, slope = torch.where(nearer, loss, best), where(nearer, grad, slope)
                least = torch.where(nearer, place, least)
        self.spent.forwards += count
        self.spent.backwards += count * len(columns)
        return logits[:count].detach(), best, slope

    def _grad(self, loss: Tensor, x: Tensor, *, last: bool) -> Tensor:
        (grad,) = torch.autograd.grad(loss.sum(), x, allow_unused=True, retain_graph=not last) if loss.requires_grad else (None,)
        if grad is None:  # the graph does not connect input and output
            return torch.zeros_like(x)
        return torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0)

    def _tiles(self, x: Tensor) -> Iterator[tuple[Tensor, int]]:
        for start in range(0, len(x), self._tile):
            part = x[start : start + self._tile]
            missing = -len(part) % self.granule
            yield (torch.cat((part, part[:1].expand(missing, *part.shape[1:]))) if missing else part), len(part)


class Decisions:
    """A target that gives decisions and has nothing else to give."""

    def __init__(self, target: DecisionAccess) -> None:
        """Narrow `target`."""
        self._target = target

    @property
    def tile(self) -> int:
        """Rows of one pass."""
        return self._target.tile

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes (B,)."""
        return self._target.labels(x)

    def reached(self, goal: Goal, x: Tensor) -> Tensor:
        """(B,) bool: whether the decision reaches the goal."""
        return self._target.reached(goal, x)

    def quick(self) -> Decide | None:
        """Quicker decisions, where the target has any."""
        return quick(self._target)

    def tell(self, share: float) -> None:
        """Pass progress on."""
        self._target.tell(share)


class Scores(Decisions):
    """A target that gives decisions and scores, and no slope."""

    def __init__(self, target: ScoreAccess) -> None:
        """Narrow `target`."""
        super().__init__(target)
        self._scores = target

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self._scores.logits(x)

    def near(self, like: Tensor) -> Near:
        """Scores with a memory, where the target has one."""
        return near(self._scores, like)

    def ahead(self, rows: int) -> int:
        """Looks of each of so many rows, where the target gives room for them."""
        return ahead(self._scores, rows)


def _remembers(target: DecisionAccess) -> TypeGuard[NearAccess]:
    return hasattr(target, "near")  # asked at every pass, and to hold it against the protocol takes longer than the rest


def near(target: ScoreAccess, like: Tensor) -> Near:
    """Scores with a memory where the target has one, else without."""
    return target.near(like) if _remembers(target) else lambda name, x, worth: target.logits(x)


def ahead(target: DecisionAccess, rows: int) -> int:
    """How many looks of each of so many rows go into one pass; 1 where the target charges for every one."""
    return target.ahead(rows) if _remembers(target) else 1


def quick(target: DecisionAccess) -> Decide | None:
    """Quicker decisions than the judge's, where the target has any."""
    return target.quick() if isinstance(target, QuickAccess) else None

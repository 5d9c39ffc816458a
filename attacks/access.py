"""What an attacker may ask of a model, as types; and the white-box target that answers everything."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sparring.attacks.problem import Goal


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


class ScoreAccess(DecisionAccess, Protocol):
    """Scores as well."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        ...


class GradientAccess(ScoreAccess, Protocol):
    """Slopes as well."""

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) at x (B, …), and the gradient (B, …) of each row's `loss(logits)` (B,)."""
        ...


@dataclass
class Spent:
    """Rows passed through the model, padding not counted."""

    forwards: int = 0
    backwards: int = 0


class Target:
    """White-box access to a model. `judge` is the original and decides; `search` is a copy prepared for speed.

    Every pass has exactly `tile` rows, the last one padded with its own first row: floating-point results depend on the
    shape of a batch, and so a row's results here depend on the row alone.
    """

    def __init__(self, judge: nn.Module, search: nn.Module, tile: int) -> None:
        """Both modules map (tile, …) float32 to logits (tile, K); parameters of `search` need no gradient."""
        self.judge = judge
        self.search = search
        self.spent = Spent()
        self._tile = tile

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

    def slope(self, loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and gradient (B, …) from the search copy; at most one tile of rows."""
        if len(x) > self._tile:
            raise ValueError(f"slope takes at most one tile of {self._tile} rows, not {len(x)}")
        self.spent.forwards += len(x)
        self.spent.backwards += len(x)
        part, count = next(self._tiles(x))
        part = part.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.search(part)
            total = loss(logits[:count]).sum()
            (grad,) = torch.autograd.grad(total, part, allow_unused=True) if total.requires_grad else (None,)
        if grad is None:  # the graph does not connect input and output
            grad = torch.zeros_like(part)
        return logits[:count].detach(), torch.nan_to_num(grad[:count], nan=0.0, posinf=0.0, neginf=0.0)

    def _tiles(self, x: Tensor) -> Iterator[tuple[Tensor, int]]:
        for start in range(0, len(x), self._tile):
            part = x[start : start + self._tile]
            missing = self._tile - len(part)
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


class Scores(Decisions):
    """A target that gives decisions and scores, and no slope."""

    def __init__(self, target: ScoreAccess) -> None:
        """Narrow `target`."""
        super().__init__(target)
        self._scores = target

    def logits(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self._scores.logits(x)

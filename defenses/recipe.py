"""What a defense is made of: how rows are moved, what the loss is, how weights step."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.defenses.data import Batch
from sparring.defenses.views import Views

Perturb = Callable[[Views, Batch], Tensor]
"""x' (B, …), inside ball and bounds; it carries no graph."""
Objective = Callable[[Views, Batch, Tensor], Tensor]
"""(views, batch, x') -> loss (), in nats and a mean over rows; minimised."""
Carry = dict[str, Tensor]
"""What an update remembers from batch to batch; part of a checkpoint."""


class Turn(NamedTuple):
    """One batch's turn to teach."""

    views: Views
    batch: Batch
    objective: Objective
    descend: Callable[[Callable[[], Tensor]], None]
    """Takes one step of the weights, along the gradients that the function leaves in them; it returns the loss.

    The function may be called more than once, and must leave the same each time.
    """

    def teach(self, x: Tensor, share: float = 1.0) -> Tensor:
        """The loss () at x', whose gradients, times `share`, are added to those of the weights."""
        loss = self.objective(self.views, self.batch, x)
        torch.autograd.backward(loss if share == 1 else loss * share)
        return loss.detach()


Update = Callable[[Turn, Tensor, Carry], Carry]
"""(turn, x', carry) -> carry; takes one step of the weights or more."""


def plain(turn: Turn, x: Tensor, carry: Carry) -> Carry:
    """One step."""
    turn.descend(lambda: turn.teach(x))
    return carry


def unmoved(views: Views, batch: Batch) -> Tensor:
    """The rows as they are."""
    return batch.x


class Recipe(NamedTuple):
    """A defense."""

    objective: Objective
    perturb: Perturb = unmoved
    update: Update = plain
    replays: int = 1
    """Steps of the weights for each batch; epochs are divided by it."""
    after: Callable[[Views, float], None] | None = None
    """What is done to the weights after each step of this learning rate."""
    guard: float = 0.0
    """Training ends once accuracy under PGD falls by more than this below its best; 0 never ends it."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know."""

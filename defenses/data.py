"""What a model is trained on: rows by their index, batches in an order drawn from the seed, and what is true of all rows together."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import Bounds

_ORDER, _LOOK = 11, 12  # streams of randomness
_ROWS = 2048
"""Rows that facts about all of them are taken from."""


class Data(NamedTuple):
    """Rows to learn from. They are asked for batch by batch, and need not all be in memory."""

    rows: Callable[[Tensor], Tensor]
    """Indices (B,) int64 -> (B, …) float32, in units of the data."""
    size: int
    """How many there are."""
    labels: Tensor | None = None
    """(N,) int64; None for rows without labels."""
    bounds: Bounds = (0.0, 1.0)
    """Lowest and highest legal value; None where any number is legal."""


def in_memory(x: Tensor, labels: Tensor | None = None, bounds: Bounds = (0.0, 1.0)) -> Data:
    """Data from tensors: x (N, …) float32, labels (N,) int64."""
    return Data(lambda index: x[index], len(x), labels, bounds)


class Facts(NamedTuple):
    """What defaults are taken from: how far the data reach, in their own units."""

    bounds: Bounds
    span: float
    """From the lowest to the highest legal value; without bounds four standard deviations of an entry."""
    spread: float
    """Root mean square of the l2 distance of a row from the mean row."""


def facts(data: Data) -> Facts:
    """Facts about data, from 2,048 of the rows at most."""
    x = data.rows(permutation(data.size, 0, _LOOK, 0)[:_ROWS]).double().flatten(1)
    spread = float((x - x.mean(0)).square().sum(1).mean().sqrt())
    if data.bounds is None:
        return Facts(None, 4 * spread / x.shape[1] ** 0.5, spread)
    return Facts(data.bounds, data.bounds[1] - data.bounds[0], spread)


class Batch(NamedTuple):
    """The rows of one update."""

    x: Tensor
    """(B, …) float32."""
    y: Tensor
    """(B,) int64."""
    key: Tensor
    """(B,) int64: seeds every draw for a row in this epoch; see `sparring.attacks.random`."""
    row: Tensor
    """(B,) int64: which rows of the data these are."""
    bounds: Bounds
    spare: Tensor | None = None
    """(U, …): rows without labels."""
    spare_key: Tensor | None = None
    done: float = 0.0
    """How much of the training is behind us, from 0 to 1."""

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(*(part.to(device) if isinstance(part, Tensor) else part for part in self))  # type: ignore[arg-type]  # each its own


@lru_cache(maxsize=4)  # an epoch's updates all ask for the same one
def permutation(count: int, seed: int, stream: int, turn: int) -> Tensor:
    """A permutation of `count` rows, int64, that is a function of what else is given."""
    return random.fork(random.fork(random.keys(seed, torch.arange(count)), stream), turn).argsort(stable=True)


class Order(NamedTuple):
    """Which rows an update takes: of data as long as an epoch each once, of shorter data in endless permutations."""

    size: int
    batch: int
    steps: int
    """Updates in an epoch."""
    seed: int
    stream: int

    def at(self, epoch: int, step: int) -> Tensor:
        """Indices (B,) int64 of one update."""
        if self.steps == -(-self.size // self.batch):
            return self._permutation(epoch)[step * self.batch : (step + 1) * self.batch]
        wanted = min(self.batch, self.size)
        first = (epoch * self.steps + step) * wanted
        turns = range(first // self.size, (first + wanted - 1) // self.size + 1)
        endless = torch.cat([self._permutation(turn) for turn in turns])
        start = first % self.size
        return endless[start : start + wanted]

    def _permutation(self, turn: int) -> Tensor:
        return permutation(self.size, self.seed, _ORDER + self.stream, turn)


def orders(data: Data, spare: Data | None, batch: int, spare_batch: int, seed: int) -> tuple[Order, Order | None]:
    """The order of both kinds of rows. An epoch is one pass over the kind that takes more updates."""
    steps = -(-data.size // batch)
    if spare is None:
        return Order(data.size, batch, steps, seed, 0), None
    steps = max(steps, -(-spare.size // spare_batch))
    return Order(data.size, batch, steps, seed, 0), Order(spare.size, spare_batch, steps, seed, 1)

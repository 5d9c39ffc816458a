"""How well a model in training does, clean and under PGD, on a few rows that stay the same."""

from typing import NamedTuple

import torch

from sparring.attacks import random
from sparring.contract.defenses import AnyDefense, Ball
from sparring.contract.threat import Norm, Threat
from sparring.defenses.data import Batch, Data, Facts, permutation
from sparring.defenses.perturb import pgd
from sparring.defenses.views import Views

STEPS = 5
"""Of PGD, from a random start, 2.5 * eps / 5 each."""
_WATCH, _SHARE = 61, 20


class Seen(NamedTuple):
    """What was seen: rows that are right, clean and under PGD."""

    clean: int
    robust: int
    total: int


class Watch:
    """A few rows of the training data, and the attack they are watched under."""

    def __init__(self, spec: AnyDefense, data: Data, facts: Facts, most: int, seed: int) -> None:
        """At most `most` rows, and a twentieth of all; none where there are no labels."""
        count = min(most, -(-data.size // _SHARE)) if data.labels is not None else 0
        index = permutation(data.size, seed, _WATCH, 0)[:count]
        ball = spec if isinstance(spec, Ball) else Ball()
        self.norm: Norm = ball.norm
        self.eps = ball.radius(facts.span)
        self._pgd = pgd(self.norm, self.eps, 2.5 * self.eps / STEPS, STEPS)
        self._batch = None
        if count and data.labels is not None:
            key = random.fork(random.keys(seed, index), _WATCH)
            self._batch = Batch(data.rows(index), data.labels[index], key, index, data.bounds)

    @property
    def threat(self) -> Threat:
        """What the rows are watched under."""
        return Threat(norm=self.norm, eps=self.eps)

    def look(self, views: Views) -> Seen | None:
        """How many are right; None where no rows are watched."""
        if self._batch is None:
            return None
        batch = self._batch.to(views.device)
        x = self._pgd(views, batch)
        with torch.no_grad():
            clean, robust = (int((views.still(rows).argmax(1) == batch.y).sum()) for rows in (batch.x, x))
        return Seen(clean, robust, len(batch.y))

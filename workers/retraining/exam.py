"""How a model in training does on rows it does not learn from: clean, under the single step and under PGD."""

import copy
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.access import Target
from sparring.attacks.norms import Bounds, ball
from sparring.attacks.problem import Goal, problem
from sparring.attacks.search import search_copy
from sparring.contract.attacks import FGM, FGSM, PGD, AnyAttack
from sparring.contract.threat import Threat

MOST = 512
"""Rows that are examined after each epoch."""
_TILE = 64
_STEPS = 10


class Marks(NamedTuple):
    """Rows that are right."""

    clean: int
    single: int
    """Under the single step, whatever the threat."""
    robust: int
    """Under PGD, whatever the threat."""
    total: int


class Exam:
    """Rows, and what they are attacked by. The same model gets the same marks."""

    def __init__(self, x: Tensor, labels: Tensor, threats: Sequence[Threat], bounds: Bounds, seed: int) -> None:
        """Examine on rows x (B, …) with labels (B,), on the device they lie on."""
        self._x, self._labels, self._bounds = x[:MOST], labels[:MOST], bounds
        self._key = random.keys(seed, torch.arange(len(self._x), device=x.device))
        self._threats = [threat for threat in threats if threat.norm in PGD.norms and not threat.targeted]

    def sit(self, model: nn.Module) -> Marks:
        """Marks of a model, which is left as it is."""
        with torch.random.fork_rng([self._x.device] if self._x.device.type == "cuda" else []):
            torch.manual_seed(0)
            judge = copy.deepcopy(model).eval().requires_grad_(False)
            target = Target(judge, search_copy(judge)[0], _TILE)
            right = target.verdict(self._x).argmax(1) == self._labels
            single, robust = right.clone(), right.clone()
            for threat in self._threats:
                self._attack(FGSM() if threat.norm in FGSM.norms else FGM(), threat, target, single)
                self._attack(PGD(steps=_STEPS), threat, target, robust)
        return Marks(int(right.sum()), int(single.sum()), int(robust.sum()), len(right))

    def _attack(self, spec: AnyAttack, threat: Threat, target: Target, standing: Tensor) -> None:
        """Strike out the rows that fall; in place."""
        rows = torch.nonzero(standing).flatten()
        if not len(rows):
            return
        x = self._x[rows]
        eps = torch.full((len(rows),), threat.radius, dtype=torch.float64, device=x.device)
        key = random.fork(self._key[rows], zlib.crc32(spec.kind.encode()))
        asked = problem(Goal(self._labels[rows]), ball(threat.norm, x, eps, self._bounds), key)
        standing[rows] = ~catalogue.run(spec, threat.radius, target, asked).success

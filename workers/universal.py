"""The one perturbation of a threat, fitted on rows that are not evaluated."""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from sparring.attacks.uap import fit, moved
from sparring.contract.attacks import UAP
from sparring.contract.report import Score, UniversalResult
from sparring.contract.threat import Norm
from sparring.workers.bench import Bench


class Universal(NamedTuple):
    """A perturbation, and how it comes to be."""

    spec: UAP
    norm: Norm
    eps: float

    @property
    def passes(self) -> int:
        """Points visited, each but the last with a batch of rows."""
        return self.spec.steps + 1

    @property
    def file(self) -> str:
        """Where it is kept."""
        digest = hashlib.sha256(json.dumps([self.spec.model_dump(), self.norm, self.eps]).encode()).hexdigest()
        return f"universal-{digest[:20]}.safetensors"


def fitted(
    lesson: Universal, bench: Bench, x: Tensor, labels: Tensor | None, seed: int, tell: Callable[[int], None]
) -> tuple[Tensor, UniversalResult]:
    """The perturbation (…) of a lesson, fitted on rows x (N, …), and what came of it. Without labels (N,) predictions take their place.

    `tell(n)`: n more points are visited.
    """
    target, bounds = bench.target.exact(), bench.data.bounds
    target.tell = lambda share: tell(1)
    said = target.labels(x)
    v = fit(lesson.spec, lesson.norm, lesson.eps, target, x, said if labels is None else labels, bounds, seed)
    changed = int((target.labels(moved(x, v, bounds)) != said).sum())
    queries = lesson.spec.steps * min(lesson.spec.batch, len(x)) + 2 * len(x)
    return v, UniversalResult(rows=len(x), queries=queries, fooled=Score(count=changed, total=len(x)))

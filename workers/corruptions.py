"""Accuracy under common corruptions: a baseline beside the attacks. Rows must be pictures, grey or RGB, with declared bounds."""

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.corruptions import corrupt
from sparring.contract.corruptions import COLOURED, SEVERITIES, CorruptionName
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import CorruptionResult, Finding, Score
from sparring.contract.specs import DataSpec
from sparring.workers.bench import Bench, Facts
from sparring.workers.errors import Refused


class _Pictures(NamedTuple):
    """How rows of the data are pictures."""

    channels: int
    last: bool
    """Colours are the last axis."""
    low: float
    high: float

    def open(self, x: Tensor) -> Tensor:
        """Rows (B, …) of the data as pictures (B, C, H, W) in [0, 1]."""
        seen = x[:, None] if x.dim() == 3 else x.movedim(3, 1) if self.last else x
        return (seen - self.low) / (self.high - self.low)

    def close(self, pictures: Tensor, like: Tensor) -> Tensor:
        """The way back, to the shape of `like`."""
        x = self.low + pictures * (self.high - self.low)
        return (x.movedim(1, 3) if self.last else x).reshape(like.shape).clamp_(self.low, self.high)


def chosen(job: Evaluate | Craft, row: tuple[int, ...], spec: DataSpec) -> tuple[CorruptionName, ...]:
    """The corruptions of a job that rows of this shape can suffer, in their order.

    Raises:
        Refused: the rows are no pictures, their bounds are unknown, or none of the corruptions means anything for them.
    """
    asked = job.corruptions if job.kind == "evaluate" else ()
    if not asked:
        return ()
    coloured = _pictures(row, spec).channels == 3
    fit = tuple(name for name in asked if coloured or name not in COLOURED)
    if not fit:
        raise Refused(
            "unsupported",
            f"the data are grey pictures, on which {', '.join(asked)} does nothing",
            hint="Ask for another corruption, or leave corruptions out.",
            detail="corruptions_not_applicable",
        )
    return fit


def _pictures(row: tuple[int, ...], spec: DataSpec) -> _Pictures:
    last = spec.layout == "NHWC" and len(row) == 3
    channels = 1 if len(row) == 2 else row[2 if last else 0] if len(row) == 3 else 0
    if channels not in (1, 3):
        raise Refused(
            "unsupported",
            f"corruptions are of pictures with 1 or 3 channels; a row of the data has shape {list(row)} (layout {spec.layout or 'NCHW'})",
            hint="Leave corruptions out, or upload the rows as pictures; where colours come last, with layout=NHWC.",
            detail="not_pictures",
        )
    if not isinstance(spec.bounds, tuple):
        raise Refused(
            "unsupported",
            "corruptions are of pictures whose black and white are known; the data declare no bounds",
            hint="Leave corruptions out, or upload the data with bounds, such as bounds=0,1.",
            detail="not_pictures",
        )
    return _Pictures(channels, last, *spec.bounds)


def left_out(job: Evaluate | Craft, row: tuple[int, ...], spec: DataSpec) -> Iterator[Finding]:
    """Which corruptions of the job mean nothing for these rows; Refused as by `chosen`."""
    fit = chosen(job, row, spec)
    if absent := [name for name in (job.corruptions if job.kind == "evaluate" else ()) if name not in fit]:
        yield Finding(
            code="corruptions_left_out",
            message=f"The data are grey pictures, on which {', '.join(absent)} does nothing: left out.",
            evidence={"corruptions": [*absent]},
        )


def suffer(job: Evaluate | Craft, bench: Bench, x: Tensor, labels: Tensor, key: Tensor, tell: Callable[[int], None]) -> NDArray[np.bool_]:
    """Whether each of the rows x (B, …) is still right: (B, types, severities). `tell(n)` is called as n rows are through one type."""
    names = chosen(job, bench.data.row_shape, bench.data.spec)
    right = torch.zeros(len(x), len(names), SEVERITIES, dtype=torch.bool, device=x.device)
    for at, name in enumerate(names):
        drawn = random.fork(key, zlib.crc32(name.encode()))
        for first in range(0, len(x), bench.target.tile):
            some = slice(first, first + bench.target.tile)
            for severity in range(1, SEVERITIES + 1):
                seen = bench.target.verdict(_corrupted(name, severity, x[some], random.fork(drawn[some], severity), bench.data.spec))
                right[some, at, severity - 1] = torch.isfinite(seen).all(1) & (seen.argmax(1) == labels[some])
            tell(len(x[some]))
    return right.cpu().numpy()


def _corrupted(name: CorruptionName, severity: int, x: Tensor, key: Tensor, spec: DataSpec) -> Tensor:
    seen = _pictures(tuple(x.shape[1:]), spec)
    return seen.close(corrupt(name, severity, seen.open(x), key), x)


def results(job: Evaluate | Craft, facts: Facts, right: NDArray[np.bool_]) -> tuple[CorruptionResult, ...]:
    """Scores by type and severity, from (rows, types, severities)."""
    return tuple(
        CorruptionResult(name=name, severities=tuple(Score(count=int(count), total=len(right)) for count in counts))
        for name, counts in zip(chosen(job, facts.shape[1:], facts.spec), right.sum(0), strict=True)
    )

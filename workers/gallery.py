"""Pictures for the report: some broken rows of image data, before and after."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparring.contract.report import Report
from sparring.contract.runner import Order
from sparring.reports.figures import amplified, picture_png
from sparring.reports.html import Picture
from sparring.workers.datasets import Dataset, open_dataset, unpack

if TYPE_CHECKING:
    from sparring.workers.assemble import Results

MOST = 8
"""Pictures for one threat."""


def gallery(order: Order, report: Report, results: "Results") -> list[Picture]:
    """At most MOST pictures a threat, of as many classes as there are; none if the rows are no pictures."""
    data = open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)
    if not _is_picture(data):
        return []
    wanted = {
        (threat, int(results.rows[at])): at
        for threat, ended in enumerate(results.ended)
        for at in _spread(np.flatnonzero(ended.broken_by >= 0), results.labels)
    }
    drawn = {(threat, row): _picture(report, results, data, threat, at, x) for threat, row, at, x in _found(results, wanted)}
    return [drawn[place] for place in wanted]


def _found(results: "Results", wanted: dict[tuple[int, int], int]) -> Iterator[tuple[int, int, int, NDArray[np.float32]]]:
    for threat, rows, witness in results.witnesses():
        for row, x in zip(rows, witness, strict=True):
            if (at := wanted.get((threat, int(row)))) is not None:
                yield threat, int(row), at, x


def _picture(report: Report, results: "Results", data: Dataset, threat: int, at: int, adversarial: NDArray[np.float32]) -> Picture:
    row, ended = int(results.rows[at]), results.ended[threat]
    x = data.rows(range(row, row + 1))[0].numpy()
    delta = adversarial - x
    return Picture(
        row=row,
        label=int(results.labels[at]),
        threat=threat,
        clean_prediction=int(results.clean[at]),
        prediction=int(ended.prediction[at]),
        broken_by=report.threats[threat].each[int(ended.broken_by[at])].name,
        distance=float(ended.distance[at]),
        original=picture_png(_shown(x, data)),
        perturbation=picture_png(_upright(amplified(delta, float(np.abs(delta).max())), data)),
        adversarial=picture_png(_shown(adversarial, data)),
    )


def _is_picture(data: Dataset) -> bool:
    shape = _upright(np.zeros(data.row_shape, dtype=np.uint8), data).shape
    return len(shape) in (2, 3) and min(shape[:2]) >= 4 and max(shape[:2]) <= 1024 and (len(shape) == 2 or shape[2] in (1, 3))


def _upright(x: NDArray[np.uint8], data: Dataset) -> NDArray[np.uint8]:
    return np.moveaxis(x, 0, 2) if x.ndim == 3 and data.spec.layout != "NHWC" else x


def _shown(x: NDArray[np.float32], data: Dataset) -> NDArray[np.uint8]:
    low, high = data.bounds or (float(x.min()), float(x.max()))
    unit = (x.astype(np.float64) - low) / max(high - low, 1e-12)
    return _upright(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8), data)


def _spread(found: NDArray[np.int64], labels: NDArray[np.int64]) -> list[int]:
    """The first broken row of each class, then the second of each, and so on."""
    turns: dict[int, int] = {}
    ranked = []
    for at in found:
        label = int(labels[at])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], label, int(at)))
    return [at for _, _, at in sorted(ranked)[:MOST]]

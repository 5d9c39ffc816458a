"""Pictures for the report: some broken rows of image data, before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparring.contract.report import Report
from sparring.contract.runner import Order
from sparring.reports.figures import amplified, picture_png
from sparring.reports.html import Picture
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.shard import Ended


def gallery(
    order: Order,
    report: Report,
    examples: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64],
    clean: NDArray[np.int64],
    ended: Sequence[Ended],
    rows: NDArray[np.int64],
    most: int,
) -> list[Picture]:
    """At most `most` pictures a threat, of as many classes as there are; none if the rows are no pictures."""
    data = open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)
    if not _is_picture(data):
        return []
    pictures = []
    witness = examples["x"]
    for threat, result in enumerate(report.threats):
        at_row = {int(row): at for at, row in enumerate(examples["row"]) if examples["threat"][at] == threat}
        for at in _spread(np.flatnonzero(ended[threat].broken_by >= 0), labels, most):
            row = int(rows[at])
            x = data.rows(range(row, row + 1))[0].numpy()
            adversarial = witness[at_row[row]]
            delta = adversarial - x
            scale = result.threat.radius if result.threat.norm == "linf" else float(np.abs(delta).max())
            pictures.append(
                Picture(
                    row=row,
                    label=int(labels[at]),
                    threat=threat,
                    clean_prediction=int(clean[at]),
                    prediction=int(ended[threat].prediction[at]),
                    broken_by=result.each[int(ended[threat].broken_by[at])].name,
                    distance=float(ended[threat].distance[at]),
                    original=picture_png(_shown(x, data)),
                    perturbation=picture_png(_upright(amplified(delta, scale), data)),
                    adversarial=picture_png(_shown(adversarial, data)),
                )
            )
    return pictures


def _is_picture(data: Dataset) -> bool:
    shape = _upright(np.zeros(data.row_shape, dtype=np.uint8), data).shape
    return len(shape) in (2, 3) and min(shape[:2]) >= 4 and max(shape[:2]) <= 1024 and (len(shape) == 2 or shape[2] in (1, 3))


def _upright(x: NDArray[np.uint8], data: Dataset) -> NDArray[np.uint8]:
    return np.moveaxis(x, 0, 2) if x.ndim == 3 and data.spec.layout != "NHWC" else x


def _shown(x: NDArray[np.float32], data: Dataset) -> NDArray[np.uint8]:
    low, high = data.bounds or (float(x.min()), float(x.max()))
    unit = (x.astype(np.float64) - low) / max(high - low, 1e-12)
    return _upright(np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8), data)


def _spread(found: NDArray[np.int64], labels: NDArray[np.int64], most: int) -> list[int]:
    """The first broken row of each class, then the second of each, and so on."""
    turns: dict[int, int] = {}
    ranked = []
    for at in found:
        label = int(labels[at])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], label, int(at)))
    return [at for _, _, at in sorted(ranked)[:most]]

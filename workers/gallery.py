"""Pictures of broken rows of image data, before and after: some for the report, more to be looked up later."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparring.contract.report import Report
from sparring.contract.runner import Order
from sparring.reports.figures import amplified, picture_png
from sparring.reports.html import Picture
from sparring.reports.pictures import PICTURES, Album, Broken, upright
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.shard import CLEAN, Ended

if TYPE_CHECKING:
    from sparring.workers.assemble import Results

MOST = 8
"""Pictures in the report for one threat."""
ROWS = 2048
"""Rows in pictures.zip, over all threats."""
BYTES = 32 << 20
"""Pixels in pictures.zip, over all threats."""


def gallery(order: Order, report: Report, results: "Results") -> list[Picture] | None:
    """At most MOST pictures a threat for the report, of as many classes as there are; None if the rows are no pictures.

    Writes pictures.zip into the folder of the job, if there is any to keep: another evaluation finds there the rows that became
    others with another model.
    """
    data = open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)
    size = upright(data.row_shape, data.spec.layout)
    if size is None:
        return None
    share = _share(len(results.ended), size)
    shown = _places(results, lambda found, ended: _spread(found, results.labels))
    kept = _places(results, lambda found, ended: _hardest(found, ended.queries)[:share])
    drawn = {}
    with Album(Path(order.out) / PICTURES, new=True) as album:
        for threat, row, at, x in _found(results, shown | kept):
            picture = _picture(report, results, data, threat, at, x)
            if (threat, row) in shown:
                drawn[threat, row] = picture
            if (threat, row) in kept:
                album.keep_original(row, picture.original)
                album.keep_broken(threat, row, Broken(picture.perturbation, picture.adversarial))
        for row in results.rows[results.ended[0].broken_by == CLEAN][:share]:
            album.keep_original(int(row), picture_png(_shown(_row(data, int(row)), data)))
        held = bool(album)
    if not held:
        (Path(order.out) / PICTURES).unlink()
    return [drawn[place] for place in shown]


def _places(results: "Results", choose: Callable[[NDArray[np.int64], Ended], Iterable[int]]) -> dict[tuple[int, int], int]:
    """Where in the results the rows stand that are chosen of those broken under each threat, by (threat, row)."""
    return {
        (threat, int(results.rows[at])): int(at)
        for threat, ended in enumerate(results.ended)
        for at in choose(np.flatnonzero(ended.broken_by >= 0), ended)
    }


def _share(threats: int, size: tuple[int, int, int]) -> int:
    """Rows to keep for each threat, and of those that are wrong as they are."""
    return min(ROWS, BYTES // (3 * size[0] * size[1] * size[2])) // (threats + 1)


def _hardest(found: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those that took the most queries first: of all that are broken they are the likeliest to stand with another version of the model."""
    return found[np.argsort(-queries[found], kind="stable")]


def _row(data: Dataset, row: int) -> NDArray[np.float32]:
    x: NDArray[np.float32] = data.rows(range(row, row + 1))[0].numpy()
    return x


def _found(results: "Results", wanted: dict[tuple[int, int], int]) -> Iterator[tuple[int, int, int, NDArray[np.float32]]]:
    for threat, rows, witness in results.witnesses():
        for row, x in zip(rows, witness, strict=True):
            if (at := wanted.get((threat, int(row)))) is not None:
                yield threat, int(row), at, x


def _picture(report: Report, results: "Results", data: Dataset, threat: int, at: int, adversarial: NDArray[np.float32]) -> Picture:
    row, ended = int(results.rows[at]), results.ended[threat]
    x = _row(data, row)
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

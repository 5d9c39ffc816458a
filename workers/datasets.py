"""Datasets: unpacked once into a cache as plain .npy files, then mapped, checked and handed out in rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparring.contract.specs import DataSpec
from sparring.workers.errors import Refused
from sparring.workers.unpacking import Unpacked, unpack

__all__ = ["Dataset", "Unpacked", "check", "open_dataset", "unpack"]

Rows = npt.NDArray[Any]
CHUNK = 64 << 20
"""Bytes of float32 that a full scan holds at a time."""
MAX_ROWS = 100_000_000


@dataclass(frozen=True)
class Dataset:
    """Rows as they are stored, mapped from disk, with what their numbers mean."""

    x: Rows
    """(rows, …) in the stored type, read-only."""
    labels: npt.NDArray[np.int64] | None
    """One class a row; None if the upload has none."""
    spec: DataSpec
    """With defaults filled in: bounds and scale are never None."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole dataset, rows first, as stored."""
        return tuple(self.x.shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one row, as stored."""
        return tuple(self.x.shape[1:])

    @property
    def dtype(self) -> str:
        """Stored type of the rows, such as `uint8`."""
        return str(self.x.dtype.name)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest legal value in units of the data; None where any real number is legal."""
        return self.spec.bounds if isinstance(self.spec.bounds, tuple) else None

    def rows(self, index: torch.Tensor | range) -> torch.Tensor:
        """Rows in units of the data (stored times scale): float32, (len(index), …), in the order of the index.

        Raises Refused (`not_finite`, `out_of_bounds`) naming the first row and value at fault.
        """
        stored = self.x[index.start : index.stop : index.step] if isinstance(index, range) else self.x[index.numpy()]
        scale = self.spec.scale or 1.0
        if stored.dtype.itemsize == 1 and stored.dtype.kind in "ub":
            values = (np.arange(256) * scale).astype(np.float32)[stored.view(np.uint8)]
        elif scale == 1.0:
            values = stored.astype(np.float32, order="C")
        else:
            values = (stored.astype(np.float64, order="C") * scale).astype(np.float32)
        self._check(values, index)
        return torch.from_numpy(np.ascontiguousarray(values))

    def _check(self, values: npt.NDArray[np.float32], index: torch.Tensor | range) -> None:
        """Refuse NaN, infinity and values out of bounds, naming the first row."""
        low, high = self.bounds or (-np.inf, np.inf)
        legal = np.isfinite(values) & (values >= np.float32(low)) & (values <= np.float32(high))
        if legal.all():
            return
        at = tuple(int(part) for part in np.argwhere(~legal)[0])
        found = float(values[at])
        place = f"row {int(index[at[0]])} at {list(at[1:])}"
        if not np.isfinite(found):
            hint = "Remove such rows, or fill in the missing values."
            raise Refused("bad_data", f"{place} is {found}", hint=hint, detail="not_finite")
        hint = "Declare the bounds the data really has, or correct scale. Values are never clipped: eps would lose its meaning."
        raise Refused("bad_data", f"{place} is {found:.6g}, outside the bounds [{low:g}, {high:g}]", hint=hint, detail="out_of_bounds")


def open_dataset(unpacked: Unpacked, spec: DataSpec) -> Dataset:
    """Map an unpacked dataset and resolve its spec; the values of x are checked as rows are read, or by `check`.

    Raises Refused (bad_data): shape_mismatch, empty, too_large, bounds_undeclared, labels_out_of_range, label_type.
    """
    x = np.load(unpacked.x, mmap_mode="r", allow_pickle=False)
    if x.ndim < 2:
        hint = "The first axis of x counts rows: x has shape (rows, features …)."
        raise Refused("bad_data", f"x has shape {x.shape}", hint=hint, detail="shape_mismatch")
    if x.size == 0:
        raise Refused("bad_data", f"x is empty: its shape is {x.shape}", hint="Upload at least one row.", detail="empty")
    if len(x) > MAX_ROWS:
        raise Refused("bad_data", f"x has {len(x)} rows; at most {MAX_ROWS} are read", hint="Upload fewer.", detail="too_large")
    labels = _labels(np.load(unpacked.y, mmap_mode="r", allow_pickle=False), len(x)) if unpacked.y else None
    return Dataset(x, labels, _resolved(spec, x.dtype))


def check(dataset: Dataset, classes: int, count: int | None = None) -> None:
    """Read the first `count` rows (all unless given) once, in bounded memory, and their labels.

    Raises Refused naming the first value that is not finite or out of bounds, or the first label that is no class of a model
    with `classes` classes (`not_finite`, `out_of_bounds`, `labels_out_of_range`).
    """
    count = len(dataset) if count is None else min(count, len(dataset))
    if dataset.labels is not None and int(dataset.labels[:count].max()) >= classes:
        row = int((dataset.labels >= classes).argmax())
        message = f"row {row} has label {int(dataset.labels[row])}, but the model has {classes} classes"
        raise Refused("bad_data", message, hint=f"Labels count from 0: they lie in 0..{classes - 1}.", detail="labels_out_of_range")
    step = max(1, CHUNK // (4 * int(np.prod(dataset.row_shape))))
    for start in range(0, count, step):
        dataset.rows(range(start, min(start + step, count)))


def _resolved(spec: DataSpec, dtype: np.dtype[Any]) -> DataSpec:
    """The spec with scale and bounds filled in."""
    byte = dtype == np.uint8
    scale = spec.scale or (1 / 255 if byte else 1.0)
    bounds = spec.bounds
    if bounds is None and byte and spec.scale in (None, 1 / 255):
        bounds = (0.0, 1.0)
    if bounds is None:
        hint = 'Declare bounds after scaling, such as 0,1 for images in [0, 1], or "none" where any real number is legal.'
        message = f"x holds {dtype.name} values, whose lowest and highest legal value are not known"
        raise Refused("bad_data", message, hint=hint, detail="bounds_undeclared")
    return DataSpec(bounds=bounds, scale=scale, layout=spec.layout or "NCHW")


def _labels(y: Rows, rows: int) -> npt.NDArray[np.int64]:
    """Labels of shape (rows,), or Refused saying how to write them."""
    if y.ndim == 2 and y.shape[0] == rows:
        hint = "Give the class itself: y[:, 0]." if y.shape[1] == 1 else "These look like one-hot labels: give y.argmax(axis=1)."
        raise Refused("bad_data", f"y has shape {y.shape}, not ({rows},)", hint=hint, detail="shape_mismatch")
    if y.shape != (rows,):
        hint = "Give one label for each row."
        raise Refused("bad_data", f"x has {rows} rows but y has shape {y.shape}", hint=hint, detail="shape_mismatch")
    if y.dtype.kind not in "iu":
        hint = "Labels are whole numbers counted from 0: y.astype('int64')."
        raise Refused("bad_data", f"y holds {y.dtype.name} values, not class numbers", hint=hint, detail="label_type")
    wrong = (y < 0) | (y >= 1_000_000)
    if wrong.any():
        row = int(wrong.argmax())
        hint = "Labels count from 0: they must lie in 0..classes-1."
        raise Refused("bad_data", f"row {row} has label {int(y[row])}", hint=hint, detail="labels_out_of_range")
    return y.astype(np.int64)

"""Which rows are learnt from, which ones are chosen on, and which are measured."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparring.contract.retrain import Retrain
from sparring.contract.runner import Other, TrainingOrder
from sparring.contract.specs import DataSpec
from sparring.defenses.data import Data, facts, in_memory
from sparring.workers.datasets import Dataset, open_dataset, unpack
from sparring.workers.errors import Refused

_HELD = 1 << 28
"""Bytes of float32 up to which rows are held in memory while they are learnt from."""
_CHUNK = 1 << 14


class Split(NamedTuple):
    """Indices (N,) int64 of rows, ascending; no row is in two parts."""

    training: Tensor
    validation: Tensor
    test: Tensor
    """Empty where the test rows are a dataset of their own."""


def split(job: Retrain, data: Dataset) -> Split:
    """Part the rows at random, by the job's seed, so that every class is in each part about as often as in all.

    Raises:
        Refused: a part is too small to be of use.
    """
    count = min(job.rows or len(data), len(data))
    drawn = np.random.Generator(np.random.PCG64(job.seed)).permutation(count)
    labels = np.zeros(count, np.int64) if data.labels is None else data.labels[:count]
    order = _evenly(drawn, labels)
    test = 0 if job.test else round(job.held_out * count)
    validation = round(job.validation * count)
    if count - test - validation < 2 or (job.validation and not validation) or (not job.test and not test):
        hint = "Give more rows, or test rows of their own."
        message = f"{count} rows cannot be parted into rows to learn from, to choose on ({validation}) and to measure ({test})"
        raise Refused("bad_data", message, hint=hint, detail="too_few_rows")
    parts = order[test + validation :], order[test : test + validation], order[:test]
    return Split(*(torch.from_numpy(np.sort(part)) for part in parts))


class Parted(NamedTuple):
    """What is known of the rows of a job."""

    training: int
    validation: int
    test: int
    unlabelled: int
    span: float
    """From the lowest to the highest legal value; without bounds four standard deviations of an entry."""
    sha256: str
    """Of the test rows as a file of their own; empty where they were given."""
    shape: tuple[int, ...]
    """Of all the data, rows first."""
    dtype: str
    spec: DataSpec


def part(order: TrainingOrder, path: Path) -> Parted:
    """Look over the rows of a job, and write its test rows to `path` unless they are a dataset of their own.

    Raises:
        Refused: they cannot be used.
    """
    data = opened(order)
    if data.labels is None:
        hint = "Put the labels of the rows into the .npz as y."
        raise Refused("bad_data", "the data have no labels to learn from", hint=hint, detail="labels_absent")
    parts, test, spare = split(order.job, data), other(order, "test", data), other(order, "unlabelled", data)
    if test is not None and test.labels is None:
        raise Refused("bad_data", "the test rows have no labels", hint="Put their labels into the .npz as y.", detail="labels_absent")
    span = facts(lesson(data, parts.training)).span
    digest = ""
    if test is None:
        write_part(path, data, parts.test)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    measured = len(parts.test) if test is None else len(test)
    counts = len(parts.training), len(parts.validation), measured, 0 if spare is None else len(spare)
    return Parted(*counts, span, digest, data.shape, data.dtype, data.spec)


def _evenly(drawn: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The drawn rows in an order of which every beginning holds each class by its share."""
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    _, first, size = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = (np.arange(len(drawn)) - np.repeat(first, size) + 0.5) / np.repeat(size, size)
    return by_class[np.argsort(place, kind="stable")]


def opened(order: TrainingOrder) -> Dataset:
    """The data of a job."""
    return open_dataset(unpack(Path(order.data_path), Path(order.cache), order.data.sha256), order.data.spec)


def other(order: TrainingOrder, name: str, like: Dataset) -> Dataset | None:
    """Another dataset of a job, whose rows must be like those of its data. None if it has none of that name.

    Raises:
        Refused: they are not, or cannot be read.
    """
    given: Other | None = order.others.get(name)
    if given is None:
        return None
    assert given.info.format == "npz"
    found = open_dataset(unpack(Path(given.path), Path(order.cache), given.info.sha256), given.info.spec)
    if (found.row_shape, found.bounds, found.spec.layout) != (like.row_shape, like.bounds, like.spec.layout):
        message = (
            f"rows of {name} have shape {list(found.row_shape)}, bounds {found.spec.bounds} and layout {found.spec.layout}; "
            f"those of the data {list(like.row_shape)}, {like.spec.bounds} and {like.spec.layout}"
        )
        hint = "Give rows of the same kind, and declare the same about them."
        raise Refused("bad_data", message, hint=hint, detail="shape_mismatch")
    return found


def lesson(data: Dataset, index: Tensor | None = None, *, labelled: bool = True) -> Data:
    """Rows to learn from: some of them, or all."""
    index = torch.arange(len(data)) if index is None else index
    labels = torch.from_numpy(data.labels[index.numpy()]) if labelled and data.labels is not None else None
    if 4 * len(index) * int(np.prod(data.row_shape)) <= _HELD:
        return in_memory(data.rows(index), labels, data.bounds)
    return Data(lambda at: data.rows(index[at]), len(index), labels, data.bounds)


def write_part(path: Path, data: Dataset, index: Tensor) -> None:
    """Some rows as a dataset of their own, as they are stored; the same bytes for the same rows."""
    x = np.empty((len(index), *data.row_shape), data.x.dtype)
    for at in range(0, len(index), _CHUNK):
        x[at : at + _CHUNK] = data.x[index[at : at + _CHUNK].numpy()]
    labels = {} if data.labels is None else {"y": data.labels[index.numpy()]}
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, x=x, **labels)
    temporary.replace(path)

"""Trees of tensors whose first dimension is rows: NamedTuples within NamedTuples. What is not a tensor is shared by all rows."""

from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def pick(tree: T, index: Tensor) -> T:
    """Some of the rows; `index` (N,) int64 or (B,) bool."""
    picked: T = _pick(tree, torch.nonzero(index).flatten() if index.dtype == torch.bool else index)
    return picked


def join(first: T | None, second: T) -> T:
    """The rows of both, `first` before `second`."""
    joined: T = second if first is None else _join(first, second)
    return joined


def _pick(tree: Any, index: Tensor) -> Any:
    if isinstance(tree, Tensor):
        return tree.index_select(0, index)
    if isinstance(tree, tuple):
        return type(tree)(*(_pick(part, index) for part in tree))
    return tree


def _join(first: Any, second: Any) -> Any:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat((first, second))
    if isinstance(first, tuple) and isinstance(second, tuple):
        return type(second)(*(_join(one, other) for one, other in zip(first, second, strict=True)))
    return second


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(B,) shaped to broadcast over the rows of `like` (B, …)."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))


def where(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(B, …): `first` in the rows that are true in `rows` (B,) bool, else `second`."""
    return torch.where(per_row(rows, second), first, second)


def choose(rows: Tensor, first: T, second: T) -> T:
    """The tree that holds `first` in the rows that are true in `rows` (B,) bool, else `second`."""
    chosen: T = _choose(rows, first, second)
    return chosen


def _choose(rows: Tensor, first: Any, second: Any) -> Any:
    if isinstance(first, Tensor):
        return where(rows, first, second)
    return type(first)(*(_choose(rows, one, other) for one, other in zip(first, second, strict=True)))

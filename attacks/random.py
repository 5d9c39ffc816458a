"""Keyed randomness: a draw is a function of its key, never of the batch a row happens to share.

A key is one int64 per row, chained through splitmix64 (Steele, Lea, Flood 2014) from the job's seed, the row's place in the
dataset and whatever else names the draw (attack, restart, step, stream). Elements are `mix(key + j * G)`, two to a word.
"""

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """The int64 with the low 64 bits of `word`."""
    return ((word + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


G = _signed(0x9E3779B97F4A7C15)
_M1 = _signed(0xBF58476D1CE4E5B9)
_M2 = _signed(0x94D049BB133111EB)


def _mix_(z: Tensor) -> Tensor:
    """Splitmix64's finaliser, in place. int64 shifts are arithmetic, hence the masks."""
    z ^= (z >> 30) & ((1 << 34) - 1)
    z *= _M1
    z ^= (z >> 27) & ((1 << 37) - 1)
    z *= _M2
    z ^= (z >> 31) & ((1 << 33) - 1)
    return z


def fork(key: Tensor, label: int | Tensor) -> Tensor:
    """A fresh key per row: `key` (B,) int64, `label` an int or (B,) int64."""
    step = _signed((label + 1) * G) if isinstance(label, int) else (label + 1) * G
    return _mix_(key + step)


def keys(seed: int, rows: Tensor) -> Tensor:
    """Keys (B,) of rows of a dataset under a job's seed. `rows` (B,) int64."""
    return fork(fork(torch.zeros_like(rows), seed), rows)


def _words(key: Tensor, count: int) -> Tensor:
    steps = torch.arange(1, count + 1, dtype=torch.int64, device=key.device) * G
    return _mix_(key[:, None] + steps)


def uniforms(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform draws in (0, 1), float32, of shape (B, *shape).

    Each is the midpoint of one of 2^23 cells: with 24 bits the last midpoint would round to 1, and its normal to infinity.
    """
    size = torch.Size(shape).numel()
    words = _words(key, (size + 1) // 2)
    halves = torch.stack(((words >> 41) & 0x7FFFFF, (words >> 9) & 0x7FFFFF), dim=2)
    return halves.flatten(1)[:, :size].to(torch.float32).add_(0.5).mul_(2.0**-23).reshape(-1, *shape)


def normals(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal draws, float32, of shape (B, *shape)."""
    return uniforms(key, shape).mul_(2).sub_(1).erfinv_().mul_(2.0**0.5)


def integers(key: Tensor, high: Tensor | int) -> Tensor:
    """One integer per row in [0, high), int64. The bias is below high * 2^-33."""
    word = (_words(key, 1)[:, 0] >> 31) & ((1 << 33) - 1)
    return word % high

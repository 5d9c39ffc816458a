"""Small changes of pictures (B, C, H, W) that should not change what they show. Each row's draw is a function of its key."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks import random
from sparring.attacks.norms import Bounds
from sparring.attacks.rows import per_row, where
from sparring.contract.defenses import Transform

SHIFT, DEGREES, COLOUR = 1 / 8, 15.0, 0.2
"""The most a picture is moved, as a share of its side; turned; and changed in brightness and contrast, as a share of them."""


def changed(names: Sequence[Transform], x: Tensor, key: Tensor, bounds: Bounds) -> Tensor:
    """The rows after each of the transforms in turn; `key` (B,).

    Raises:
        ValueError: the rows are no pictures.
    """
    if names and x.dim() != 4:
        raise ValueError(f"{names[0]} needs pictures of shape (channels, height, width); rows have shape {list(x.shape[1:])}: leave it out")
    for at, name in enumerate(names):
        x = _TRANSFORMS[name](x, random.fork(key, at), bounds)
    return x


def _signed(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform in (-1, 1)."""
    return random.uniforms(key, shape).mul_(2).sub_(1)


def _flip(x: Tensor, key: Tensor, bounds: Bounds) -> Tensor:
    """From left to right, every other time."""
    return where(random.uniforms(key, ()) < 0.5, x.flip(3), x)


def _shift(x: Tensor, key: Tensor, bounds: Bounds) -> Tensor:
    """By whole pixels on both axes; the edge goes on."""
    draws = _signed(key, (2,))
    for axis, draw in ((2, draws[:, 0]), (3, draws[:, 1])):
        size = x.shape[axis]
        far = (draw * (max(1, round(SHIFT * size)) + 0.5)).round().long()
        place = (torch.arange(size, device=x.device) + far[:, None]).clamp_(0, size - 1)
        x = x.gather(axis, (place[:, None, :, None] if axis == 2 else place[:, None, None]).expand_as(x))
    return x


def _rotate(x: Tensor, key: Tensor, bounds: Bounds) -> Tensor:
    """About the middle; the edge goes on."""
    angle = per_row(_signed(key, ()) * math.radians(DEGREES), x[:, 0])
    height, width = x.shape[2:]
    down = (torch.arange(height, device=x.device) - (height - 1) / 2)[:, None]
    right = torch.arange(width, device=x.device) - (width - 1) / 2
    rows, columns = angle.cos() * down - angle.sin() * right, angle.sin() * down + angle.cos() * right
    grid = torch.stack((columns * 2 / width, rows * 2 / height), dim=3)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _colour(x: Tensor, key: Tensor, bounds: Bounds) -> Tensor:
    """Contrast about the mean and brightness of each channel."""
    channels = x.shape[1]
    draws = _signed(key, (2, channels, 1, 1)) * COLOUR
    low, high = bounds or (float(x.min()), float(x.max()))
    mean = x.mean((2, 3), keepdim=True)
    return (mean + (x - mean) * (1 + draws[:, 0]) + draws[:, 1] * (high - low) / 2).clamp(low, high)


_TRANSFORMS: dict[Transform, Callable[[Tensor, Tensor, Bounds], Tensor]] = {
    "flip": _flip,
    "shift": _shift,
    "rotate": _rotate,
    "colour": _colour,
}

"""Common corruptions of pictures (Hendrycks, Dietterich 2019, arXiv 1903.12261), in five severities each.

Pictures are (B, C, H, W) float32 in [0, 1], grey or RGB, and so are their corruptions. `key` (B,) seeds each row's draws. Every
operation is elementwise or a gather: no row looks at another. Values are not rounded to bytes in between, as published files are.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks import random
from sparring.attacks.rows import per_row
from sparring.contract.corruptions import CorruptionName

LARGE = 128
"""Pictures whose shorter side has so many pixels or more take the settings of ImageNet-C, others those of CIFAR-10-C."""

Setting = tuple[float, ...]
_Settings = tuple[Setting, ...]


def corrupt(name: CorruptionName, severity: int, x: Tensor, key: Tensor) -> Tensor:
    """The pictures x under a corruption of severity 1 to 5."""
    how, small, large = _CORRUPTIONS[name]
    settings = large if min(x.shape[2:]) >= LARGE else small
    return how(x, key, settings[severity - 1]).clamp_(0, 1)


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape[1:])


def _gaussian_noise(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Adds N(0, s)."""
    return x + setting[0] * random.normals(key, _shape(x))


def _speckle_noise(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Adds x N(0, s)."""
    return x + x * setting[0] * random.normals(key, _shape(x))


def _impulse_noise(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Salt and pepper: a share of the values becomes 0 or 1."""
    draws = random.uniforms(key, _shape(x))
    (share,) = setting
    return torch.where(draws < share, (draws < share / 2).to(x.dtype), x)


def _shot_noise(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Poisson(x c) / c: c photons where it is white."""
    (photons,) = setting
    return (_poisson(x.double() * photons, random.uniforms(key, _shape(x)).double()) / photons).to(x.dtype)


def _poisson(mean: Tensor, draws: Tensor) -> Tensor:
    """The least k with P(X <= k) >= draw: a guess after Cornish and Fisher, then up or down until it is exact."""
    normal = math.sqrt(2) * torch.erfinv(2 * draws - 1)
    k = (mean + normal * mean.sqrt() + (normal**2 - 1) / 6).floor_().clamp_(min=0)

    def likely(count: Tensor) -> Tensor:
        """P(X = count)."""
        return torch.exp(torch.xlogy(count, mean) - mean - torch.lgamma(count + 1))

    below = torch.special.gammaincc(k + 1, mean)  # P(X <= k)
    while bool((short := below < draws).any()):
        k = k + short.double()
        below = below + torch.where(short, likely(k), 0.0)
    while bool((over := (k > 0) & (below - likely(k) >= draws)).any()):
        below = below - torch.where(over, likely(k), 0.0)
        k = k - over.double()
    return k


def _spread(x: Tensor, weights: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Sum of weight[i, j] times x moved up by rows[i] and left by columns[j]; beyond its edge a picture goes on as it ends."""
    height, width = x.shape[2:]
    down, right = max(0, -min(rows)), max(0, -min(columns))
    wide = functional.pad(x, (right, max(0, *columns), down, max(0, *rows)), mode="replicate")
    total = torch.zeros_like(x)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (weight := float(weights[i, j])) > 0:
                total.add_(wide[:, :, down + row : down + row + height, right + column : right + column + width], alpha=weight)
    return total


def _bell(sigma: float, radius: int) -> Tensor:
    """A Gaussian's weights at -radius … radius, summing to 1."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-at.square() / (2 * sigma**2))
    return weights / weights.sum()


def _blurred(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur, cut at four standard deviations."""
    radius = int(4 * sigma + 0.5)
    bell, around = _bell(sigma, radius), list(range(-radius, radius + 1))
    return _spread(_spread(x, bell[:, None], around, [0]), bell[None], [0], around)


def _gaussian_blur(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    return _blurred(x, setting[0])


def _defocus_blur(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """The mean over a disk, its edge softened by a small Gaussian: (radius, softness)."""
    radius, softness = setting
    soft = 1 if radius <= 8 else 2
    reach = int(radius) + soft
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (at[:, None].square() + at.square() <= radius**2).double()
    bell = _bell(softness, soft)
    weights = functional.conv2d((disk / disk.sum())[None, None], (bell[:, None] * bell)[None, None], padding=soft)[0, 0]
    return _spread(x, weights, list(range(-reach, reach + 1)), list(range(-reach, reach + 1)))


def _glass_blur(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Each pixel takes the value of one nearby, between two Gaussian blurs: (sigma, distance, passes).

    The reference means to swap two pixels but, writing through views, copies the other; so do we, though all pixels at once.
    """
    sigma, distance, passes = setting[0], int(setting[1]), int(setting[2])
    x = _blurred(x, sigma)
    height, width = x.shape[2:]
    row, column = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    moves = (row > distance) & (row <= height - distance) & (column > distance) & (column <= width - distance)
    for turn in range(passes):
        steps = (random.uniforms(random.fork(key, turn), (2, height, width)) * 2 * distance).long() - distance
        steps = torch.where(moves, steps, 0)
        place = (row + steps[:, 0]) * width + column + steps[:, 1]
        x = x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)
    return _blurred(x, sigma)


def _motion_blur(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """A one-sided Gaussian along a line within 45 degrees of the horizontal: (radius, sigma)."""
    length, sigma = 2 * int(setting[0]) + 1, setting[1]
    angle = (random.uniforms(key, ()) - 0.5) * (math.pi / 2)
    height, width = x.shape[2:]
    weights = torch.exp(-torch.arange(length).double().square() / (2 * sigma**2))
    total = torch.zeros_like(x)
    for at, weight in enumerate((weights / weights.sum()).tolist()):
        rows = (torch.arange(height, device=x.device) + (at * angle.sin()).round().long()[:, None]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=x.device) + (at * angle.cos()).round().long()[:, None]).clamp_(0, width - 1)
        place = rows[:, :, None] * width + columns[:, None]
        total.add_(x.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape), alpha=weight)
    return total


def _contrast(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Toward each channel's mean."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + (x - mean) * setting[0]


def _brightness(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """More value in HSV; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    brighter = (value + setting[0]).clamp(max=1)
    return torch.where(value > 0, x * (brighter / value), brighter)


def _saturate(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Saturation in HSV times one number plus another; what is grey counts as red."""
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    pale = value - least
    saturation = torch.where(value > 0, pale / value, 0.0)
    wanted = (saturation * setting[0] + setting[1]).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=x.device)[:, None, None]
    distance = torch.where(pale > 0, (value - x) / pale, red)
    return value * (1 - wanted * distance)


def _pixelate(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Smaller by a box filter, and back by the nearest pixel."""
    for axis in (2, 3):
        x = _coarser(x, axis, max(1, int(x.shape[axis] * setting[0])))
    return x


def _coarser(x: Tensor, axis: int, size: int) -> Tensor:
    """One axis resampled to `size` and back: the mean of the pixels whose centres lie in each of the larger ones."""
    full = x.shape[axis]
    scale = full / size
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale - 0.5
    first = (torch.floor(centre - scale / 2) + 1).long().clamp(min=0)
    last = torch.floor(centre + scale / 2).long().clamp(max=full - 1)
    count = last - first + 1
    total = torch.zeros_like(x.narrow(axis, 0, size))
    shape = [-1 if at == axis else 1 for at in range(4)]
    for step in range(int(count.max())):
        weight = torch.where(step < count, 1 / count, 0.0).to(x)
        total += x.index_select(axis, (first + step).clamp(max=full - 1).to(x.device)) * weight.reshape(shape)
    back = ((torch.arange(full, dtype=torch.float64) + 0.5) / scale).long().clamp(max=size - 1)
    return total.index_select(axis, back.to(x.device))


def _rotation(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Turned about the middle, to the left or to the right, by so many degrees; the edge goes on."""
    side = torch.where(random.uniforms(key, ()) < 0.5, -1.0, 1.0)
    angle = per_row(side * math.radians(setting[0]), x[:, 0])
    height, width = x.shape[2:]
    down = (torch.arange(height, device=x.device) - (height - 1) / 2)[:, None]
    right = torch.arange(width, device=x.device) - (width - 1) / 2
    rows, columns = angle.cos() * down - angle.sin() * right, angle.sin() * down + angle.cos() * right
    grid = torch.stack((columns * 2 / width, rows * 2 / height), dim=3)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _translation(x: Tensor, key: Tensor, setting: Setting) -> Tensor:
    """Moved by a share of its sides, one way or the other on each axis; the edge goes on."""
    ways = torch.where(random.uniforms(key, (2,)) < 0.5, -1, 1)
    for axis, way in ((2, ways[:, 0]), (3, ways[:, 1])):
        size = x.shape[axis]
        far = max(1, round(setting[0] * size))
        place = (torch.arange(size, device=x.device) + far * way[:, None]).clamp_(0, size - 1)
        x = x.gather(axis, (place[:, None, :, None] if axis == 2 else place[:, None, None]).expand_as(x))
    return x


def _each(*values: float) -> _Settings:
    return tuple((value,) for value in values)


_How = Callable[[Tensor, Tensor, Setting], Tensor]
_ANGLES, _SHARES = _each(5, 10, 15, 22.5, 30), _each(0.04, 0.08, 0.12, 0.16, 0.2)

_CORRUPTIONS: dict[CorruptionName, tuple[_How, _Settings, _Settings]] = {
    "gaussian_noise": (_gaussian_noise, _each(0.04, 0.06, 0.08, 0.09, 0.1), _each(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (_shot_noise, _each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, _each(0.01, 0.02, 0.03, 0.05, 0.07), _each(0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": (_speckle_noise, _each(0.06, 0.1, 0.12, 0.16, 0.2), _each(0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (_gaussian_blur, _each(0.4, 0.6, 0.7, 0.8, 1), _each(1, 2, 3, 4, 6)),
    "defocus_blur": (
        _defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (
        _glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        _motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "contrast": (_contrast, _each(0.75, 0.5, 0.4, 0.3, 0.15), _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": (_brightness, _each(0.05, 0.1, 0.15, 0.2, 0.3), _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "saturate": (
        _saturate,
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
    "pixelate": (_pixelate, _each(0.95, 0.9, 0.85, 0.75, 0.65), _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "rotation": (_rotation, _ANGLES, _ANGLES),
    "translation": (_translation, _SHARES, _SHARES),
}
"""How each is done, and its settings by severity for small and for large pictures."""

"""Corruptions against other libraries' filters and known distributions, and one row at a time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.corruptions import corrupt
from sparring.contract.corruptions import COLOURED, CORRUPTIONS, SEVERITIES, CorruptionName

KEYS = random.keys(3, torch.arange(12))
PICTURES = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def flat(value: float, side: int = 100) -> Tensor:
    """Twelve pictures of one colour."""
    return torch.full((12, 3, side, side), value)


SHAPES = ((3, 32, 32), (1, 8, 8), (1, 3, 2), (3, 1, 1), (3, 128, 129))


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in CORRUPTIONS for s in SHAPES if s[0] == 3 or n not in COLOURED])
def test_pictures_stay_pictures_and_no_row_looks_at_another(name: CorruptionName, shape: tuple[int, ...]) -> None:
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    for severity in (3,) if max(shape) > 32 else range(1, SEVERITIES + 1):
        whole = corrupt(name, severity, x, KEYS[:3])
        assert whole.shape == x.shape
        assert whole.dtype == torch.float32
        assert whole.min() >= 0
        assert whole.max() <= 1
        for part in (torch.tensor([2]), torch.tensor([1, 0])):
            assert torch.equal(corrupt(name, severity, x[part], KEYS[part]), whole[part])
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in ("saturate", "glass_blur")])
def test_each_severity_is_further_from_the_picture(name: CorruptionName) -> None:
    smooth = torch.stack([torch.linspace(0.1, 0.6, 32).expand(32, 32) ** power for power in (1, 2, 3)]).expand(12, 3, 32, 32)
    textured = (smooth + 0.4 * PICTURES).clamp(0, 1)
    distances = [(corrupt(name, severity, textured, KEYS) - textured).abs().mean() for severity in range(1, SEVERITIES + 1)]
    assert all(less < 1.01 * more for less, more in pairwise(distances))


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "rotation"]
)
def test_draws_are_the_rows_own(name: CorruptionName) -> None:
    x = PICTURES[:1].expand(12, -1, -1, -1)
    drawn = corrupt(name, 5, x, KEYS)
    assert torch.equal(drawn, corrupt(name, 5, x, KEYS))
    assert any(not torch.equal(drawn[0], other) for other in drawn)
    assert not torch.equal(drawn, corrupt(name, 5, x, random.fork(KEYS, 1)))


@pytest.mark.parametrize(("name", "spread"), [("gaussian_noise", 0.06), ("speckle_noise", 0.5 * 0.1)])
def test_noise_is_normal(name: CorruptionName, spread: float) -> None:
    noise = (corrupt(name, 2, flat(0.5), KEYS) - 0.5).flatten()
    assert stats.kstest(noise[::7].numpy(), "norm", args=(0, spread)).pvalue > 0.01


@pytest.mark.parametrize("white", [0.0, 0.004, 0.03, 0.4, 0.9])
@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
def test_shot_noise_counts_photons(white: float, severity: int, photons: int) -> None:
    counts = torch.round(corrupt("shot_noise", severity, flat(white), KEYS).double() * photons).flatten().numpy()
    mean = white * photons
    most = int(mean + 12 * mean**0.5 + 3)
    seen = np.bincount(counts.astype(int), minlength=most)
    wanted = stats.poisson.pmf(np.arange(len(seen)), mean) * len(counts)
    thick = (wanted > 20) & (np.arange(len(seen)) < photons)
    assert stats.chi2.sf((((seen - wanted) ** 2)[thick] / wanted[thick]).sum(), thick.sum()) > 0.01


def test_impulses_are_black_and_white_in_equal_parts() -> None:
    found = corrupt("impulse_noise", 5, flat(0.5), KEYS)
    count = found.numel()
    for share in ((found == 0).sum() / count, (found == 1).sum() / count):
        assert abs(float(share) - 0.035) < 4 * (0.035 / count) ** 0.5
    assert ((found == 0) | (found == 1) | (found == 0.5)).all()


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.4), (3, 0.7), (5, 1.0)])
def test_gaussian_blur_is_scipy_s(severity: int, sigma: float) -> None:
    wanted = ndimage.gaussian_filter(PICTURES.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    assert np.abs(corrupt("gaussian_blur", severity, PICTURES, KEYS).numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur"])
@pytest.mark.parametrize("side", [40, 128])
def test_what_a_blur_takes_from_a_pixel_it_gives_to_others(name: CorruptionName, side: int) -> None:
    point, grey = torch.zeros(2, 1, side, side), torch.full((2, 1, side, side), 0.3)
    point[:, :, side // 2, side // 2] = 1
    for severity in range(1, SEVERITIES + 1):
        assert torch.allclose(corrupt(name, severity, point, KEYS[:2]).sum((1, 2, 3)), torch.ones(2), atol=1e-4)
        assert torch.allclose(corrupt(name, severity, grey, KEYS[:2]), grey, atol=1e-6)


def test_a_lens_out_of_focus_spreads_alike_in_all_directions_and_motion_in_one() -> None:
    point = torch.zeros(12, 1, 41, 41)
    point[:, :, 20, 20] = 1
    disk = corrupt("defocus_blur", 5, point, KEYS)[0, 0]
    assert torch.allclose(disk, disk.T, atol=1e-7)
    assert torch.allclose(disk, disk.flip(0), atol=1e-7)
    for streak in corrupt("motion_blur", 3, point, KEYS)[:, 0]:
        rows, columns = (torch.nonzero(streak > 1e-3) - 20).unbind(1)
        assert (rows.abs() <= columns.abs()).all(), "within 45 degrees of the horizontal"
        assert columns.max() == 0
        assert columns.min() < -2


@pytest.mark.parametrize("severity", [1, 4])
def test_glass_moves_pixels_without_making_any(severity: int) -> None:
    x = torch.zeros(12, 1, 60, 60)
    x[:, :, 20:40, 20:40] = 1
    moved = corrupt("glass_blur", severity, x, KEYS)
    assert torch.allclose(moved[:, :, 24:36, 24:36], x[:, :, 24:36, 24:36], atol=1e-6)
    assert not moved[:, :, :16].any()
    assert (moved != x).flatten(1).any(1).all()


@pytest.mark.parametrize(("severity", "times", "plus"), [(1, 0.3, 0.0), (2, 0.1, 0.0), (3, 1.5, 0.0), (5, 2.5, 0.2)])
def test_saturation_is_that_of_hsv(severity: int, times: float, plus: float) -> None:
    x = torch.cat((PICTURES, torch.full((12, 3, 2, 32), 0.4), torch.zeros(12, 3, 2, 32)), 2)
    hsv = rgb_to_hsv(x.double().movedim(1, 3).numpy())
    hsv[..., 1] = np.clip(hsv[..., 1] * times + plus, 0, 1)
    assert np.abs(corrupt("saturate", severity, x, KEYS).movedim(1, 3).numpy() - hsv_to_rgb(hsv)).max() < 1e-5


@pytest.mark.parametrize(("severity", "plus"), [(1, 0.05), (3, 0.15), (5, 0.3)])
def test_brightness_is_the_value_of_hsv(severity: int, plus: float) -> None:
    x = torch.cat((PICTURES, torch.zeros(12, 3, 2, 32)), 2)
    hsv = rgb_to_hsv(x.double().movedim(1, 3).numpy())
    hsv[..., 2] = np.clip(hsv[..., 2] + plus, 0, 1)
    assert np.abs(corrupt("brightness", severity, x, KEYS).movedim(1, 3).numpy() - hsv_to_rgb(hsv)).max() < 1e-5
    assert torch.allclose(corrupt("brightness", severity, x[:, :1], KEYS), (x[:, :1] + plus).clamp(max=1), atol=1e-6)


def test_contrast_shrinks_toward_each_channel_s_own_mean() -> None:
    found = corrupt("contrast", 3, PICTURES, KEYS)
    mean = PICTURES.mean((2, 3), keepdim=True)
    assert torch.allclose(found, mean + 0.4 * (PICTURES - mean), atol=1e-6)


@pytest.mark.parametrize(("severity", "size"), [(1, 30), (3, 27), (5, 20)])
def test_pixelating_is_pillow_s_box(severity: int, size: int) -> None:
    found = corrupt("pixelate", severity, PICTURES, KEYS)
    for channel in range(3):
        small = Image.fromarray(PICTURES[0, channel].numpy()).resize((size, size), Image.Resampling.BOX)
        wanted = np.asarray(small.resize((32, 32), Image.Resampling.BOX))
        assert np.abs(found[0, channel].numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize(("severity", "degrees"), [(1, 5), (5, 30)])
def test_rotation_is_scipy_s_one_way_or_the_other(severity: int, degrees: float) -> None:
    found = corrupt("rotation", severity, PICTURES, KEYS)
    sides = []
    for row in range(12):
        turned = [ndimage.rotate(PICTURES[row, 0].numpy(), way * degrees, order=1, mode="nearest", reshape=False) for way in (-1, 1)]
        inner = slice(8, -8)  # where neither looks beyond the edge
        gaps = [np.abs(found[row, 0, inner, inner].numpy() - one[inner, inner]).max() for one in turned]
        sides.append(int(np.argmin(gaps)))
        assert min(gaps) < 1e-5
    assert len(set(sides)) == 2


def test_translation_moves_by_whole_pixels_and_the_edge_goes_on() -> None:
    found = corrupt("translation", 5, PICTURES, KEYS)
    ways = set()
    for row in range(12):
        padded = np.pad(PICTURES[row].numpy(), ((0, 0), (6, 6), (6, 6)), mode="edge")
        fits = [(a, b) for a in (0, 12) for b in (0, 12) if np.array_equal(found[row].numpy(), padded[:, a : a + 32, b : b + 32])]
        assert len(fits) == 1
        ways.add(fits[0])
    assert len(ways) > 2


def test_large_pictures_take_the_settings_for_large_pictures() -> None:
    small, large = (corrupt("gaussian_noise", 1, flat(0.5, side), KEYS) for side in (127, 128))
    assert abs(float(small.std()) - 0.04) < 1e-3
    assert abs(float(large.std()) - 0.08) < 1e-3

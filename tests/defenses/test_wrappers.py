"""What stands before a model, and certificates by smoothing, against Pillow, scipy and closed forms."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from sparring.attacks import random
from sparring.contract.defenses import JPEG, WRAPPERS, BitDepth, NoisyInput, Smoothed, SmoothingCertificate
from sparring.defenses.certify import at_least, certify
from sparring.defenses.wrappers import Wrapped, coarse, jpeg


def picture(channels: int) -> np.ndarray:
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.rand(1, channels, 5, 5), (37, 44), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [20, 75, 95])
def test_jpeg_gives_back_what_pillow_does(channels: int, quality: int) -> None:
    stored = picture(channels)
    file = io.BytesIO()
    Image.fromarray(stored.squeeze()).save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).astype(float).reshape(stored.shape)
    found = (jpeg(torch.tensor(stored).permute(2, 0, 1)[None].float() / 255, quality) * 255)[0].permute(1, 2, 0).numpy()
    lost = abs(expected - stored).mean()
    assert abs(found - expected).mean() < 0.25 * lost + 0.3
    assert (abs(found - expected) <= 2).mean() > 0.95


def test_rounding_counts_as_nothing_on_the_way_back() -> None:
    x = torch.rand(2, 3, 16, 16) * 0.8 + 0.1
    for wrapped in (lambda rows: jpeg(rows, 60), lambda rows: coarse(rows, 3)):
        rows = x.clone().requires_grad_()
        weights = torch.randn_like(x)
        (slope,) = torch.autograd.grad((wrapped(rows) * weights).sum(), rows)
        assert torch.allclose(slope, weights, atol=1e-4)


def test_few_bits() -> None:
    x = torch.tensor([0.0, 0.1, 0.2, 0.49, 0.51, 1.0])
    assert torch.allclose(coarse(x, 1), torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]))
    assert len(coarse(torch.rand(1000), 3).unique()) == 8


def test_a_wrapper_says_how_it_is_attacked_and_varies_only_where_it_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    x = torch.rand(5, 3, 16, 16) * 2 - 1
    for kind in WRAPPERS:
        wrapped = Wrapped(model, kind(), (-1.0, 1.0))
        first, second = wrapped(x), wrapped(x)
        assert first.shape == (5, 4)
        assert torch.equal(first, second) != kind.random
        with_gradient = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(wrapped(with_gradient).square().sum(), with_gradient)
        assert (slope != 0).any()
        if kind.gradient == "bpda":
            with pytest.raises(ValueError, match="declare them"):
                Wrapped(model, kind(), None)


def test_fine_settings_change_next_to_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    x = torch.rand(5, 1, 16, 16)
    for spec in (BitDepth(bits=16), NoisyInput(sigma=1e-6), JPEG(quality=100)):
        assert torch.allclose(Wrapped(model, spec, (0.0, 1.0))(x), model(x), atol=0.05)
    smoothed = Wrapped(model, Smoothed(sigma=1e-6, samples=3), None)(x)
    assert torch.allclose(smoothed.softmax(1), model(x).softmax(1), atol=1e-4)


def test_jpeg_needs_pictures() -> None:
    with pytest.raises(ValueError, match=r"1 or 3 channels; rows have shape \[5\]"):
        jpeg(torch.rand(2, 5), 75)


def test_the_lower_bound_is_that_of_clopper_and_pearson() -> None:
    hits = torch.tensor([1, 50, 99, 100, 73, 50])
    expected = stats.beta.ppf(0.001, hits, 100 - hits + 1)
    assert np.allclose(at_least(hits, 100, 0.001), expected, rtol=1e-9)
    assert at_least(torch.tensor([0]), 100, 0.001) == 0
    assert np.isclose(float(at_least(torch.tensor([99_500]), 100_000, 0.001)), stats.beta.ppf(0.001, 99_500, 501), rtol=1e-9)


def test_on_a_linear_model_the_certified_radius_comes_near_the_exact_one_and_not_beyond() -> None:
    """A smoothed affine model is the model itself: its radius is the distance to the boundary."""
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    x = torch.randn(40, 6)
    with torch.no_grad():
        gap, w = (model(x) @ torch.tensor([-1.0, 1.0])).double(), (model.weight[1] - model.weight[0]).double()
    exact = gap.abs() / w.norm()
    found = certify(model, x, random.keys(0, torch.arange(40)), SmoothingCertificate(sigma=0.5, samples=2000))
    sure = found.labels >= 0
    assert torch.equal(found.labels[sure], (gap[sure] > 0).long())
    assert (found.radius <= exact).all()
    assert (found.radius[~sure] == 0).all()
    near = (exact > 0.2) & (exact < 0.8)
    assert near.sum() > 5
    assert (found.radius[near] > 0.7 * exact[near]).all()
    assert found.radius.max() <= 0.5 * stats.norm.ppf(0.001 ** (1 / 2000)) * (1 + 1e-9)


def test_a_row_on_the_boundary_is_abstained_from() -> None:
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    with torch.no_grad():
        model.weight[1] = 1
    found = certify(model, torch.zeros(3, 4), random.keys(0, torch.arange(3)), SmoothingCertificate(samples=500))
    assert found.labels.tolist() == [-1, -1, -1]

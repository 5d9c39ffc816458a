"""Keyed randomness: the distributions promised, whatever the batch."""

import pytest
import torch

from sparring.attacks import random
from sparring.attacks.norms import ball


def test_uniforms_fill_the_open_unit_interval_evenly() -> None:
    drawn = random.uniforms(random.keys(0, torch.arange(500)), (400,)).double()
    assert drawn.min() > 0
    assert drawn.max() < 1
    counts = torch.histc(drawn.float(), 50, 0, 1)
    expected = drawn.numel() / 50
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi-square, 49 degrees of freedom: p < 1e-5 beyond


def test_neighbouring_elements_and_rows_are_uncorrelated() -> None:
    drawn = random.uniforms(random.keys(1, torch.arange(1000)), (101,)).double() - 0.5
    for a, b in ((drawn[:, :-1], drawn[:, 1:]), (drawn[:-1], drawn[1:]), (drawn[:, :-2], drawn[:, 2:])):
        assert abs(float((a * b).mean() * 12)) < 5 / a.numel() ** 0.5


def test_a_draw_belongs_to_its_row_alone() -> None:
    rows = torch.tensor([5, 900, 31])
    every = random.normals(random.keys(7, torch.arange(1000)), (3, 5))
    assert torch.equal(random.normals(random.keys(7, rows), (3, 5)), every[rows])


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_seeds_and_forks_give_other_draws(seed: int) -> None:
    key = random.keys(seed, torch.arange(4))
    forks = torch.stack([key, random.fork(key, 0), random.fork(key, 1), random.keys(seed ^ 1, torch.arange(4))])
    assert len(forks.unique()) == forks.numel()


def test_normals_have_mean_0_variance_1_and_are_finite() -> None:
    drawn = random.normals(random.keys(3, torch.arange(400)), (500,)).double()
    assert torch.isfinite(drawn).all()
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.var()) - 1) < 0.01
    assert abs(float((drawn.abs() > 1.959964).double().mean()) - 0.05) < 0.003


def test_integers_cover_their_range_evenly() -> None:
    counts = torch.bincount(random.integers(random.keys(0, torch.arange(9000)), 9), minlength=9)
    assert ((counts - 1000) ** 2 / 1000).sum() < 45


def test_l2_sample_is_uniform_in_the_ball() -> None:
    """(radius / eps)^d is uniform: Kolmogorov-Smirnov distance under the 1e-6 quantile."""
    size, count = 6, 4000
    centre = torch.zeros(count, size)
    region = ball("l2", centre, torch.full((count,), 2.0), None)
    x = region.norm.sample(random.keys(0, torch.arange(count)), region)
    u = ((region.distance(x) / 2) ** size).sort().values
    assert (u - (torch.arange(count) + 0.5) / count).abs().max() < 2.7 / count**0.5
    assert x.mean(0).abs().max() < 0.06


def test_linf_sample_is_uniform_in_the_box() -> None:
    region = ball("linf", torch.zeros(2000, 3), torch.full((2000,), 0.5), None)
    x = region.sample(random.keys(0, torch.arange(2000))).flatten().sort().values
    assert (x + 0.5 - (torch.arange(6000) + 0.5) / 6000).abs().max() < 2.7 / 6000**0.5

"""The balls: draws have the distribution they are said to have, and extremes are the best points."""

import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import Ball, Bounds, ball

SIZE, DRAWS = 5, 4000
KEYS = random.keys(7, torch.arange(DRAWS))


def around(norm: str, eps: float, centre: Tensor, bounds: Bounds = None) -> Ball:
    return ball(norm, centre, torch.full((len(centre),), eps, dtype=torch.float64), bounds)


@pytest.mark.parametrize(
    ("norm", "coordinate"),
    [
        ("linf", lambda part: (part + 1) / 2),
        ("l2", lambda part: beta.cdf((part + 1) / 2, (SIZE + 1) / 2, (SIZE + 1) / 2)),
        ("l1", lambda part: (1 + part.sign() * (1 - (1 - part.abs()) ** SIZE)) / 2),
    ],
)
def test_draws_are_uniform_in_the_ball(norm: str, coordinate) -> None:
    """Radius^d is uniform in any norm, and so is each coordinate's own distribution function."""
    drawn = around(norm, 2.0, torch.zeros(DRAWS, SIZE)).sample(KEYS).double() / 2
    length = {"linf": drawn.abs().amax(1), "l2": drawn.norm(dim=1), "l1": drawn.abs().sum(1)}[norm]
    samples = [length**SIZE, *(torch.as_tensor(coordinate(drawn[:, at])) for at in range(SIZE))]
    assert all(kstest(sample.numpy(), "uniform").pvalue > 0.01 for sample in samples)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_surface_lies_at_eps_and_draws_on_all_sides(norm: str) -> None:
    drawn = around(norm, 2.0, torch.zeros(DRAWS, SIZE))
    points = drawn.surface(KEYS)
    distance = drawn.distance(points)
    assert (distance <= 2).all()
    assert (distance > 2 * (1 - 1e-5)).all()
    assert (points.sign().sum(0).abs() < 4 * DRAWS**0.5).all()


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_no_point_of_ball_and_box_is_better_than_the_extreme(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    centre, slope = torch.rand(200, 6, generator=generator), torch.randn(200, 6, generator=generator)
    slope = torch.where(torch.rand(200, 6, generator=generator) < 0.2, 0.0, slope)
    for bounds in ((0.0, 1.0), None):
        where = around(norm, 0.4, centre, bounds)
        best = (where.extreme(slope).double() * slope).sum(1)
        assert where.contains(where.extreme(slope)).all()
        for seed in range(20):
            other = where.sample(random.keys(seed, torch.arange(200)))
            polished = where.project(other + 10 * where.steepest(slope, other, 0.2))
            assert ((other * slope).sum(1) <= best + 1e-5).all()
            assert ((polished * slope).sum(1) <= best + 1e-5).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-9, 0.3, float("inf")])
@pytest.mark.parametrize("far", [1.0, 4000.0])
def test_what_is_projected_lies_in_ball_and_box_and_stays(norm: str, eps: float, far: float) -> None:
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand(40, 2, 9, generator=generator) * far
    where = around(norm, eps, centre, (0.0, far))
    for step in (1e-6, 1e-3, 1.0, 1e6):
        moved = where.project(centre + step * torch.randn(40, 2, 9, generator=generator))
        assert where.contains(moved).all()
        assert torch.equal(where.project(moved), moved)
        assert eps or torch.equal(moved, centre)

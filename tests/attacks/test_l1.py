"""The l1 ball's own: the exact projection on ball and box, and sparse steps."""

import pytest
import torch
from torch import Tensor

from sparring.attacks.norms import Ball, Bounds, ball
from sparring.attacks.norms.l1 import L1

GENERATOR = torch.Generator().manual_seed(0)


def around(centre: Tensor, eps: Tensor | float, bounds: Bounds) -> Ball:
    return ball("l1", centre, torch.as_tensor(eps, dtype=torch.float64).expand(len(centre)), bounds)


def nearest(x: Tensor, where: Ball) -> Tensor:
    """The projection of one row by the book: try every piece between breakpoints of the threshold, all in float64."""
    centre, eps = where.centre[0].double(), float(where.eps[0])
    wish = x[0].double() - centre
    room = torch.where(wish > 0, where.high[0] - centre, centre - where.low[0])

    def change(threshold: Tensor) -> Tensor:
        return torch.minimum((wish.abs() - threshold).clamp(min=0), room)

    breaks = torch.cat((wish.new_zeros(1), wish.abs(), (wish.abs() - room).clamp(min=0))).unique()
    sizes = torch.stack([change(threshold).sum() for threshold in breaks])
    if sizes[0] <= eps:
        return centre + change(breaks[0]) * wish.sign()
    at = int((sizes > eps).sum()) - 1
    share = (sizes[at] - eps) / (sizes[at] - sizes[at + 1])
    return centre + change(breaks[at] + share * (breaks[at + 1] - breaks[at])) * wish.sign()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None], ids=["boxed", "free"])
@pytest.mark.parametrize("size", [1, 2, 7, 40, 300])
def test_the_projection_is_the_nearest_point(bounds: Bounds, size: int) -> None:
    for trial in range(40):
        centre = torch.rand(1, size, generator=GENERATOR)
        centre = centre.round() if trial % 3 == 0 else centre
        eps = 10.0 ** float(torch.rand((), generator=GENERATOR) * 4 - 3)
        x = centre + torch.randn(1, size, generator=GENERATOR) * 10.0 ** (trial % 4 - 2)
        where = around(centre, eps, bounds)
        assert (where.project(x)[0].double() - nearest(x, where)).abs().max() < 2e-6 * max(1.0, eps)


def test_a_row_is_projected_the_same_whatever_its_neighbours() -> None:
    centre = torch.rand(60, 50, generator=GENERATOR)
    x = centre + torch.randn(60, 50, generator=GENERATOR) * torch.logspace(-3, 3, 60)[:, None]
    eps = torch.logspace(-4, 2, 60, dtype=torch.float64).flip(0)
    whole = around(centre, eps, (0.0, 1.0)).project(x)
    for part in (torch.tensor([5]), torch.arange(59, -1, -1), torch.arange(10, 31)):
        assert torch.equal(around(centre[part], eps[part], (0.0, 1.0)).project(x[part]), whole[part])


def test_thresholds_that_newton_cannot_find_are_found_by_halves() -> None:
    """Sizes over many orders of magnitude, and box walls that make the curve bend both ways."""
    centre = torch.full((1, 400), 0.5)
    x = centre + torch.logspace(-8, 6, 400)
    where = around(centre, 1.0, (0.0, 1.0))
    moved = where.project(x)
    assert where.contains(moved).all()
    assert where.distance(moved) > 1 - 1e-4
    assert (moved[0].double() - nearest(x, where)).abs().max() < 1e-5


def test_a_step_moves_the_steepest_entries_that_can_move() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.5, 0.5]])
    slope = torch.tensor([[-9.0, 9.0, 3.0, -3.0, 1.0, 0.0]])
    where = around(x, 1.0, (0.0, 1.0))
    assert L1.steepest(slope, x, where, 0.2).tolist() == [[0, 0, 0.5, -0.5, 0, 0]], "one asked for, and a tie shares"
    assert L1.steepest(slope, x, where, 0.5).tolist() == [[0, 0, *[pytest.approx(v) for v in (1 / 3, -1 / 3, 1 / 3)], 0]]
    assert L1.steepest(slope, x, where, 1.0).abs().sum() == pytest.approx(1)
    assert not L1.steepest(torch.zeros_like(slope), x, where, 0.5).any()


def test_each_row_has_its_own_share() -> None:
    slope = torch.rand(3, 20, generator=GENERATOR) + 0.1
    x = torch.full((3, 20), 0.5)
    moved = L1.steepest(slope, x, around(x, 1.0, None), torch.tensor([0.05, 0.5, 1.0]))
    assert (moved != 0).sum(1).tolist() == [1, 10, 20]
    assert torch.allclose(moved.sum(1), torch.ones(3))

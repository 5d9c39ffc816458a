"""The nearest point of a hyperplane in a box: it lies on the plane, and no point of the box that is nearer does."""

import pytest
import torch
from attacks.cases import problem
from torch import Tensor

from sparring.attacks.norms import NORMS, Ball, ball

INF = float("inf")


def most(norm: str, slope: Tensor, room: Tensor, radius: float) -> float:
    """What a change of one row gains at most in a ball of this radius, if entry i may move by room_i along its slope."""
    steep = slope.abs()
    if norm == "linf":
        return float((steep * room.clamp(max=radius)).sum())
    if norm == "l0":
        return float((steep * room).sort(descending=True).values[: int(radius)].sum())
    if norm == "l1":
        gained, left = 0.0, radius
        for entry in steep.argsort(descending=True).tolist():
            used = min(left, float(room[entry]))
            gained, left = gained + used * float(steep[entry]), left - used
        return gained
    low, high = 0.0, 1e6  # l2: min(s w, room), with s by bisection
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(torch.minimum(middle * steep, room).norm()) <= radius else (low, middle)
    return float((steep * torch.minimum(low * steep, room)).sum())


def region(norm: str, x: Tensor, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Ball:
    return ball(norm, x, torch.full((len(x),), INF, dtype=torch.float64), bounds)  # type: ignore[arg-type]  # the tests name norms


def rooms(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(slope > 0, 1 - x.double(), x.double())


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("part", [1e-6, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("falling", [False, True])
def test_it_is_on_the_plane_and_nothing_nearer_is(norm: str, part: float, falling: bool) -> None:
    torch.manual_seed(1)
    x = torch.rand(12, 5, 6).where(torch.rand(12, 5, 6) < 0.7, torch.randint(0, 2, (12, 5, 6)))
    slope = torch.randn(12, 5, 6).exp() * torch.randn(12, 5, 6).sign() * (torch.rand(12, 5, 6) < 0.9)
    uphill = -slope if falling else slope
    gap = part * (uphill.double().abs() * rooms(x, uphill)).flatten(1).sum(1)
    found = region(norm, x).onto(x, slope, -gap if falling else gap)
    change = found.double() - x.double()
    assert found.min() >= 0
    assert found.max() <= 1
    gained = (uphill.double() * change).flatten(1).sum(1)
    scale = (uphill.double().abs()).flatten(1).sum(1) * 1e-7  # rounding of x to float32
    assert ((gained - gap).abs() <= scale).all()
    for row in range(len(x)):
        length = float(NORMS[norm].measure(change)[row])  # type: ignore[index]  # likewise
        shorter = length - 1 if norm == "l0" else length * (1 - 1e-4) - 1e-7
        way = uphill[row].flatten().double()
        assert most(norm, way, rooms(x, uphill)[row].flatten(), shorter) < float(gap[row])


@pytest.mark.parametrize("norm", list(NORMS))
def test_out_of_reach_it_is_the_corner_that_comes_nearest(norm: str) -> None:
    torch.manual_seed(2)
    x, slope = torch.rand(6, 20), torch.randn(6, 20)
    slope[:, 3] = 0
    corner = torch.where(slope > 0, 1.0, 0.0).where(slope != 0, x)
    for gap in (1e3, 1e30):
        found = region(norm, x).onto(x, slope, torch.full((6,), gap))
        assert torch.allclose(found, corner, atol=1e-6)


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None], ids=["boxed", "free"])
def test_no_slope_and_no_gap_are_no_move(norm: str, bounds: tuple[float, float] | None) -> None:
    x = torch.tensor([[0.0, 1.0, 0.5]]).repeat(4, 1)
    slope = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0], [1.0, -2.0, 3.0], [1.0, -2.0, 3.0]])
    gap = torch.tensor([1.0, 0.0, float("nan"), INF])
    assert torch.equal(region(norm, x, bounds).onto(x, slope, gap), x)


@pytest.mark.parametrize(("norm", "length"), [("linf", 1 / 6), ("l2", 1 / 14**0.5), ("l1", 1 / 3), ("l0", 1.0)])
def test_without_bounds_it_is_as_far_as_the_dual_norm_says(norm: str, length: float) -> None:
    x, slope = torch.tensor([[100.0, -5.0, 0.0]]), torch.tensor([[1.0, -2.0, 3.0]])
    space = region(norm, x, None)
    found = space.onto(x, slope, torch.tensor([1.0]))
    assert float(space.distance(found)) == pytest.approx(length, rel=1e-4)
    assert float(((found - x).double() * slope).sum()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("norm", list(NORMS))
def test_a_row_has_the_same_point_in_any_company(norm: str) -> None:
    """Neighbours that need more of Newton's passes do not move a row that is there."""
    torch.manual_seed(3)
    x, slope = torch.rand(40, 64), torch.randn(40, 64) ** 3
    gap = torch.rand(40) * 40
    space = region(norm, x)
    whole = space.onto(x, slope, gap)
    for row in range(40):
        alone = Ball(x[row : row + 1], space.eps[:1], space.low[:1], space.high[:1], space.norm)
        assert torch.equal(alone.onto(x[row : row + 1], slope[row : row + 1], gap[row : row + 1]), whole[row : row + 1])


def test_slopes_of_very_different_steepness_are_followed_to_the_end() -> None:
    """Every breakpoint lies at another scale: the worst case of Newton's method."""
    slope = 2.0 ** -torch.arange(60.0)[None]
    x = torch.zeros(1, 60)
    for norm in ("linf", "l2", "l1"):
        found = region(norm, x).onto(x, slope, torch.tensor([1.999999]))
        assert float((found.double() * slope.double()).sum()) == pytest.approx(1.999999, abs=1e-6)


def test_a_smaller_ball_has_a_smaller_box() -> None:
    x = torch.tensor([[0.0, 0.5, 1.0]])
    inner = problem(x, torch.zeros(1, dtype=torch.int64), "linf", INF, (0.0, 1.0)).ball.within(torch.tensor([0.25], dtype=torch.float64))
    assert torch.equal(inner.project(torch.tensor([[9.0, 9.0, -9.0]])), torch.tensor([[0.25, 0.75, 0.75]]))


class TestL0:
    """The ball of few changed entries."""

    def test_the_largest_changes_stay(self) -> None:
        x = torch.full((1, 4), 0.5)
        space = ball("l0", x, torch.tensor([2.9], dtype=torch.float64), (0.0, 1.0))
        moved = space.project(torch.tensor([[0.6, 7.0, 0.5, 0.2]]))
        assert torch.equal(moved, torch.tensor([[0.5, 1.0, 0.5, 0.2]]))
        assert space.contains(moved).all()
        assert float(space.distance(moved)) == 2

    def test_draws_and_extremes_lie_inside(self) -> None:
        torch.manual_seed(0)
        x, grad = torch.rand(50, 3, 4), torch.randn(50, 3, 4)
        space = ball("l0", x, torch.full((50,), 3.0, dtype=torch.float64), (0.0, 1.0))
        key = torch.arange(50)
        best = space.extreme(grad)
        for point in (space.sample(key), space.surface(key), best):
            assert space.contains(point).all()
            assert (space.distance(point) >= 2).all()
        gain = ((best - x) * grad).flatten(1).sum(1)
        for row in range(50):
            uphill = grad[row].flatten().double()
            assert float(gain[row]) == pytest.approx(most("l0", uphill, rooms(x, grad)[row].flatten(), 3), rel=1e-5)

    def test_without_bounds_there_is_nothing_to_draw_from_and_no_best_point(self) -> None:
        x = torch.rand(5, 4)
        space = ball("l0", x, torch.full((5,), 2.0, dtype=torch.float64), None)
        assert torch.equal(space.sample(torch.arange(5)), x)
        assert torch.equal(space.extreme(torch.ones(5, 4)), x)

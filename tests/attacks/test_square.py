"""Square: where its windows may lie and how they shrink, what it starts from, what it keeps, and what it spends."""

import math

import pytest
import torch
from attacks.cases import Spy, cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.losses import ce, margin
from sparring.attacks.pictures import Picture, picture, window
from sparring.attacks.problem import Goal, Outcome, Problem
from sparring.attacks.square import bump, sides
from sparring.contract.attacks import Square

PAPER = [(0, 1), (10, 2), (50, 4), (200, 8), (500, 16), (1000, 32), (2000, 64), (4000, 128), (6000, 256), (8000, 512)]
"""Of 10,000 queries: after so many the share is divided by so much."""
SHAPES = [(1, 8, 8), (3, 6, 9), (2, 9, 4), (8, 7, 3), (1, 12), (20,), (1, 30, 2)]
shaped = pytest.mark.parametrize("shape", SHAPES, ids=str)
some = pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (8, 7, 3), (20,)], ids=str)


class Watching(Spy):
    """Remembers every look at the scores."""

    def __init__(self, model: nn.Module, tile: int = 64) -> None:
        super().__init__(target(model, tile), "score")
        self.seen: list[Tensor] = []

    def logits(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return super().logits(x)


class Level(nn.Module):
    """The label wins by as much wherever one looks, or by less at every look."""

    def __init__(self, *, falling: bool = False) -> None:
        super().__init__()
        self.falling, self.looks = falling, 0

    def forward(self, x: Tensor) -> Tensor:
        self.looks += self.falling
        return torch.stack((torch.full((len(x),), 1e6 - self.looks), torch.zeros(len(x))), 1)


def watched(model: nn.Module, shape: tuple[int, ...], norm: str = "linf", queries: int = 100, rows: int = 40, eps: float = 0.2,
            bounds: tuple[float, float] | None = None) -> tuple[Problem, list[Tensor]]:  # fmt: skip
    """A problem, and every point that the attack looks at, (rows, *shape) each."""
    x = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))
    asked = problem(x, torch.zeros(rows, dtype=torch.int64), norm, eps, bounds, stop=False)
    spy = Watching(model)
    catalogue.run(Square(queries=queries), eps, spy, asked)
    return asked, spy.seen[: queries + 1]


def frame(changed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B,) each: first and last row and column of what is true in (B, C, H, W)."""
    found = []
    for axis in (3, 2):
        marked = changed.any(1).any(axis - 1).long()
        found += [marked.argmax(1), marked.shape[1] - 1 - marked.flip(1).argmax(1)]
    return found[0], found[1], found[2], found[3]


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (32, 32), (5, 7)])
def test_the_windows_of_a_square_picture_are_those_of_the_paper(height: int, width: int) -> None:
    wanted = [max(round(math.sqrt(0.8 / part * height * width)), 1) for _, part in PAPER]
    fitting = [(min(side, height), min(side, width)) for side in wanted]
    assert [size for size, side in zip(sides(0.8, height, width, 1), wanted, strict=True) if side <= min(height, width)] == [
        size for size, side in zip(fitting, wanted, strict=True) if side <= min(height, width)
    ]
    if height == width:
        assert sides(0.8, height, width, 1) == fitting


@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1), (3, 30), (64, 4)])
def test_in_a_narrow_picture_a_window_is_a_rectangle_of_the_same_area(height: int, width: int) -> None:
    for (high, wide), (_, part) in zip(sides(0.8, height, width, 1), PAPER, strict=True):
        assert 1 <= high <= height
        assert 1 <= wide <= width
        area = 0.8 / part * height * width
        assert abs(high * wide - max(area, 1)) <= max(min(high, wide) / 2 + 0.25, math.sqrt(area) + 0.25)


@shaped
def test_a_window_may_begin_wherever_it_fits(shape: tuple[int, ...]) -> None:
    seen, count = picture(shape), 20_000
    draws = random.uniforms(random.keys(3, torch.arange(count)), (2,))
    high, wide = (seen.height + 1) // 2, (seen.width + 1) // 2
    place = window(draws, torch.tensor([high, wide]).expand(count, 2), seen)
    starts = (seen.height - high + 1) * (seen.width - wide + 1)
    counts = torch.bincount(place.top * (seen.width - wide + 1) + place.left, minlength=starts)
    expected = count / starts
    assert len(counts) == starts
    assert ((counts - expected) ** 2 / expected).sum() < starts + 6 * math.sqrt(2 * starts) + 10
    assert window(torch.full((1, 2), 1 - 2**-24), torch.tensor([[high, wide]]), seen).inside(seen)[0, 0, -1, -1]


@some
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_pixel_is_within_reach_after_the_start(shape: tuple[int, ...], norm: str) -> None:
    """The last row and column too, also by the small windows of the last third."""
    _, looks = watched(Level(), shape, norm, queries=90)
    changed = torch.stack([look != looks[0] for look in looks[1:]])
    assert changed.flatten(0, 1).any(0).all()
    assert changed[60:].flatten(0, 1).any(0).all()


@some
@pytest.mark.parametrize("queries", [20, 50])
def test_windows_shrink_as_in_the_paper_stretched_to_the_budget(shape: tuple[int, ...], queries: int) -> None:
    """Nothing is ever kept, so that each look differs from the start by its window alone."""
    seen = picture(shape)
    table = sides(0.8, seen.height, seen.width, 1)
    _, looks = watched(Level(), shape, queries=queries)
    for at, look in enumerate(looks[1:]):
        spent = at * 10_000 // queries
        high, wide = table[max(index for index, (after, _) in enumerate(PAPER) if spent > after or index == 0)]
        changed = seen.open(look) != seen.open(looks[0])
        top, bottom, left, right = frame(changed)
        assert changed.flatten(1).any(1).all(), "a look that changes nothing is a query for nothing"
        assert (bottom - top + 1 == high).all()
        assert (right - left + 1 <= wide).all()


@shaped
def test_it_starts_from_stripes_at_the_edges_of_the_box_and_stays_at_the_edges(shape: tuple[int, ...]) -> None:
    asked, looks = watched(Level(falling=True), shape, queries=30, bounds=(0.0, 1.0))
    seen = picture(shape)
    low, high = asked.ball.low, asked.ball.high
    for look in looks:
        assert ((look == low) | (look == high)).all()
    up = seen.open(looks[0] == high)
    assert torch.equal(up, up[:, :, :1].expand_as(up))
    assert 0.35 < float(up.float().mean()) < 0.65
    columns = up[:, :, 0].flatten(1)
    assert len(columns.unique(dim=0)) > 0.9 * min(len(columns), 2 ** columns.shape[1] * 0.7)


@pytest.mark.parametrize(("model", "targeted"), [(cnn(), False), (cnn(), True)], ids=["away", "toward"])
def test_each_look_is_a_window_away_from_the_best_point_so_far(model: nn.Module, targeted: bool) -> None:
    """The best by the margin; by the cross-entropy where there are classes to reach."""
    x = pictures(40)
    labels = (target(model).labels(x) + int(targeted)) % 5
    goal, spy = Goal(labels, targeted), Watching(model)
    catalogue.run(Square(queries=60), 0.05, spy, problem(x, labels, "linf", 0.05, stop=False, targeted=targeted))
    measure = ce if targeted else margin
    best, value = spy.seen[0], measure(target(model).logits(spy.seen[0]), goal)
    kept = 0
    for look in spy.seen[1:61]:
        changed = look != best
        top, bottom, left, right = frame(changed)
        assert (bottom - top + 1 <= 7).all()
        assert (right - left + 1 <= 7).all()
        found = measure(target(model, 64).logits(look), goal)
        best = torch.where((found > value)[:, None, None, None], look, best)
        kept += int((found > value).sum())
        value = torch.maximum(value, found)
    assert 100 < kept < 2000


def nested(height: int, width: int) -> Tensor:
    """Eq. 3 as it is written: squares around the middle, the k-th of them adds 1 / k^2."""
    hill = torch.zeros(height, width)
    for ring in range(max(height // 2 + 1, width // 2 + 1)):
        top, left = height // 2 - ring, width // 2 - ring
        hill[max(top, 0) : top + 2 * ring + 1, max(left, 0) : left + 2 * ring + 1] += 1 / (ring + 1) ** 2
    return hill / hill.norm() if hill.numel() else hill


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("across", [False, True])
def test_a_bump_is_two_hills_of_opposite_sign_and_has_norm_1(height: int, width: int, across: bool) -> None:
    made = bump(height, width, across=across)
    assert made.shape == (height, width)
    assert float(made.norm()) == pytest.approx(1, abs=1e-6)
    tall, wide = (width, height) if across or height == 1 else (height, width)
    wanted = torch.cat((nested(tall // 2, wide), -nested(tall - tall // 2, wide)))
    assert torch.allclose(made.T if across or height == 1 else made, wanted / wanted.norm(), atol=1e-6)


@shaped
def test_in_l2_it_starts_from_tiles_of_equal_weight_that_use_all_of_eps(shape: tuple[int, ...]) -> None:
    asked, looks = watched(Level(), shape, "l2", queries=1, eps=0.7)
    delta = (looks[0] - asked.x).double()
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.tensor(0.7, dtype=torch.float64), rtol=1e-5)
    seen = picture(shape)
    squares = seen.open(delta).square()
    tile = (torch.arange(seen.height) * 5 // seen.height)[:, None] * 5 + torch.arange(seen.width) * 5 // seen.width
    weights = torch.stack([squares[:, :, tile == place].sum(2) for place in tile.unique()])
    assert torch.allclose(weights, weights.mean(), rtol=1e-3)
    assert (squares > 0).all()


@some
@pytest.mark.parametrize("falling", [False, True], ids=["rejected", "accepted"])
def test_mass_is_moved_and_never_lost(shape: tuple[int, ...], falling: bool) -> None:
    """Without bounds every look uses all of eps, channel by channel, however many moves lie behind it."""
    asked, looks = watched(Level(falling=falling), shape, "l2", queries=60, eps=0.7)
    seen = picture(shape)
    weights = [seen.open((look - asked.x).double()).square().sum((2, 3)) for look in looks]
    for weight, look in zip(weights, looks, strict=True):
        assert asked.ball.contains(look).all()
        assert torch.allclose(weight, weights[0], rtol=1e-4)
    assert all(not torch.equal(look, looks[0]) for look in looks[1:])


def test_what_the_bounds_cut_off_is_given_to_the_next_window() -> None:
    """Half of the start is cut off at the corners of the box; accepted moves put it to use where there is room."""
    shape = (1, 10, 10)
    x = torch.rand(30, *shape, generator=torch.Generator().manual_seed(0)).round()
    asked = problem(x, torch.zeros(30, dtype=torch.int64), "l2", 2.0, (0.0, 1.0), stop=False)
    spy = Watching(Level(falling=True))
    catalogue.run(Square(queries=300), 2.0, spy, asked)
    length = torch.stack([asked.ball.distance(look) for look in spy.seen[:301]])
    assert (length <= 2.0).all()
    assert length[0].mean() < 1.6
    assert length[200:].mean() > 1.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("stop", [True, False], ids=["verdict", "export"])
def test_the_budget_is_spent_on_rows_that_hold_and_never_exceeded(norm: str, restarts: int, stop: bool) -> None:
    """One look at the start and one at each proposal; the judge looks once where a success is claimed."""
    model, x = cnn(), pictures(30)
    eps = 0.1 if norm == "linf" else 0.6
    asked = problem(x, target(model).labels(x), norm, eps, (0.0, 1.0), stop=stop)
    outcome = catalogue.run(Square(queries=25, restarts=restarts), eps, target(model, 16), asked)
    assert 0 < int(outcome.success.sum()) < 30
    assert (outcome.queries[~outcome.success] == restarts * 26).all()
    if stop:
        assert (outcome.queries[outcome.success] <= restarts * 26 + 1).all()
        assert (outcome.queries[outcome.success] < 26).any()
    else:
        assert (outcome.queries[outcome.success] <= restarts * 27).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_row_has_windows_and_signs_of_its_own_which_are_the_same_in_any_company(norm: str) -> None:
    model, shape = Level(), (2, 7, 9)
    x = torch.rand(1, *shape).expand(40, *shape).contiguous()
    eps = 0.2

    def looks(rows: Tensor) -> Tensor:
        spy = Watching(model, tile=48)
        asked = problem(x, torch.zeros(40, dtype=torch.int64), norm, eps, stop=False).select(rows)
        catalogue.run(Square(queries=30), eps, spy, asked)
        return torch.stack(spy.seen[:31])

    every = looks(torch.arange(40))
    for rows in (torch.tensor([7]), torch.arange(39, -1, -1), torch.arange(11, 30)):
        assert torch.equal(looks(rows), every[:, rows])
    assert all(len(each.flatten(1).unique(dim=0)) == 40 for each in (every[0], every[-1]))


def test_more_queries_and_more_restarts_break_more() -> None:
    model, x = cnn(), pictures(64)
    asked = problem(x, target(model).labels(x), "linf", 0.07, (0.0, 1.0))

    def broken(spec: Square) -> Outcome:
        return catalogue.run(spec, 0.07, target(model, 64), asked)

    few, many, again = (broken(spec) for spec in (Square(queries=10), Square(queries=100), Square(queries=10, restarts=5)))
    assert int(few.success.sum()) < int(many.success.sum())
    assert (few.success <= again.success).all()
    assert int(few.success.sum()) < int(again.success.sum())


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((3, 6, 9), Picture(3, 6, 9, False)),
        ((6, 9, 3), Picture(3, 6, 9, True)),
        ((6, 9, 4), Picture(4, 6, 9, True)),
        ((6, 9, 5), Picture(6, 9, 5, False)),
        ((3, 3, 3), Picture(3, 3, 3, False)),
        ((5, 7), Picture(1, 5, 7, False)),
        ((20,), Picture(1, 1, 20, False)),
        ((2, 3, 4, 5), Picture(6, 4, 5, False)),
    ],
)
def test_rows_are_seen_as_pictures_and_come_back_as_they_were(shape: tuple[int, ...], seen: Picture) -> None:
    x = torch.rand(4, *shape)
    assert picture(shape) == seen
    assert seen.open(x).shape == (4, seen.channels, seen.height, seen.width)
    assert torch.equal(seen.close(seen.open(x), x), x)

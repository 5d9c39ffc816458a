"""Which entries Sparse-RS changes, how many at a time, and where it ends."""

import itertools

import pytest
import torch
from attacks.cases import cnn, pictures, problem, target
from torch import Tensor, nn

from sparring.attacks import catalogue, random
from sparring.attacks.sparse_rs import placed, swaps
from sparring.contract.attacks import SparseRS

BOUNDS = (0.0, 1.0)


def linear(weight: Tensor, *, flat: bool = False) -> nn.Module:
    """Two classes, the second of which gains by `weight` (d,); `flat` for pictures."""
    model = nn.Linear(len(weight), 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.stack((torch.zeros_like(weight), weight)))
    return nn.Sequential(nn.Flatten(), model) if flat else model


def gains(weight: Tensor, x: Tensor, count: int) -> float:
    """The most that so many entries of x (d,) can gain at their limits."""
    best = torch.maximum(weight * (1 - x), -weight * x)
    return float(max(best[list(chosen)].sum() for chosen in itertools.combinations(range(len(x)), count)))


@pytest.mark.parametrize("count", [1, 3, 6])
def test_on_a_linear_model_the_best_entries_are_found(count: int) -> None:
    """With 6 of 6 no entry is free: those that have moved go to the other limit."""
    torch.manual_seed(count)
    weight, x = torch.randn(6), torch.rand(4, 6) * 0.8 + 0.1
    asked = problem(x, torch.zeros(4, dtype=torch.int64), "l0", float(count), BOUNDS, stop=False)
    outcome = catalogue.run(SparseRS(queries=400), count, target(linear(weight)), asked)
    found = (outcome.x - x) @ weight
    assert torch.allclose(found, torch.tensor([gains(weight, row, count) for row in x]), atol=1e-5)


@pytest.mark.parametrize(("queries", "replaced"), [(0, 12), (40, 6), (150, 3), (9_999, 1)])
def test_fewer_and_fewer_entries_are_replaced(queries: int, replaced: int) -> None:
    """Of 40 changed entries 0.3, then a half, a quarter, a twentieth of that."""
    asked = problem(torch.rand(5, 1, 9, 9), torch.zeros(5, dtype=torch.int64), "l0", 40.0, BOUNDS)
    stage = torch.bucketize(torch.full((5,), queries), torch.tensor([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]))
    before = placed(asked)
    after = swaps(0.3)(asked, before, random.keys(7, torch.arange(5)), stage)
    for point in (before, after):
        assert ((point != asked.x).flatten(1).sum(1) == 40).all()
        assert set(point[point != asked.x].unique().tolist()) <= {0.0, 1.0}
    gone = (before != asked.x) & (after == asked.x)
    assert (gone.flatten(1).sum(1) == replaced).all()


def test_an_entry_at_a_limit_moves_to_the_other_and_one_without_limits_stays() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    label = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(placed(problem(x, label, "l0", 9.0, BOUNDS)), 1 - x)
    endless = problem(x, label, "l0", 9.0, None)
    assert torch.equal(placed(endless), x)
    assert torch.equal(swaps(0.3)(endless, x, random.keys(0, torch.arange(1)), torch.zeros(1, dtype=torch.int64)), x)


def test_a_row_all_at_its_limits_ends_in_bounds_with_every_entry_moved() -> None:
    x = torch.randint(0, 2, (3, 1, 4, 4)).float()
    asked = problem(x, torch.zeros(3, dtype=torch.int64), "l0", 99.0, BOUNDS, stop=False)
    outcome = catalogue.run(SparseRS(queries=20), 99.0, target(linear(torch.randn(16), flat=True)), asked)
    assert torch.equal(outcome.x, 1 - x)


def test_less_than_one_entry_is_none() -> None:
    asked = problem(torch.rand(2, 5), torch.zeros(2, dtype=torch.int64), "l0", 0.9, BOUNDS)
    x = placed(asked)
    assert torch.equal(x, asked.x)
    assert torch.equal(swaps(0.3)(asked, x, random.keys(0, torch.arange(2)), torch.zeros(2, dtype=torch.int64)), x)


def test_more_queries_break_more_rows_of_pictures() -> None:
    model, x = cnn(), pictures(24)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l0", 4.0, BOUNDS)
    few, many = (catalogue.run(SparseRS(queries=queries), 4.0, target(model), asked) for queries in (5, 500))
    assert int(many.success.sum()) > int(few.success.sum())
    assert ((many.x != x).flatten(1).sum(1)[many.success] <= 4).all()

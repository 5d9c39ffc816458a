"""Orders of rows, facts about data, and small changes of pictures."""

import math

import pytest
import torch
from defenses.cases import digits

from sparring.attacks import random
from sparring.defenses.data import Order, facts, in_memory, orders, permutation
from sparring.defenses.transforms import changed


def test_an_epoch_visits_every_row_once_in_an_order_of_its_own() -> None:
    order, none = orders(in_memory(torch.rand(23, 2)), None, 5, 7, 0)
    assert none is None
    assert order.steps == 5
    epochs = [[order.at(epoch, step) for step in range(5)] for epoch in range(2)]
    assert [len(part) for part in epochs[0]] == [5, 5, 5, 5, 3]
    visited = [torch.cat(each) for each in epochs]
    assert all(torch.equal(each.sort().values, torch.arange(23)) for each in visited)
    assert not torch.equal(*visited)
    other, _ = orders(in_memory(torch.rand(23, 2)), None, 5, 7, 1)
    assert not torch.equal(other.at(0, 0), order.at(0, 0))


def test_shorter_data_come_round_again_evenly() -> None:
    order, spare = orders(in_memory(torch.rand(7, 2)), in_memory(torch.rand(60, 2)), 5, 6, 0)
    assert spare is not None
    assert (order.steps, spare.steps) == (10, 10)
    drawn = torch.cat([order.at(epoch, step) for epoch in range(7) for step in range(10)])
    assert len(drawn) == 350
    assert (drawn.bincount() == 50).all()
    assert torch.equal(torch.cat([spare.at(0, step) for step in range(10)]).sort().values, torch.arange(60))


def test_a_batch_larger_than_the_data_takes_each_row_once() -> None:
    drawn = Order(3, 50, 4, 0, 0).at(1, 2)
    assert torch.equal(drawn.sort().values, torch.arange(3))


def test_permutations_are_uniform() -> None:
    firsts = torch.stack([permutation(4, 0, 0, turn) for turn in range(4000)])
    counts = torch.stack([firsts[:, at].bincount(minlength=4) for at in range(4)])
    assert (counts - 1000).abs().max() < 150


def test_facts_are_those_of_the_rows() -> None:
    x = digits(300).rows(torch.arange(300))
    known = facts(digits(300))
    assert known.span == 1
    assert math.isclose(known.spread, float((x - x.mean(0)).flatten(1).square().sum(1).mean().sqrt()), rel_tol=1e-5)
    free = facts(in_memory(torch.randn(2000, 30) * 3, None, None))
    assert abs(free.span / 12 - 1) < 0.02


@pytest.mark.parametrize("name", ["flip", "shift", "rotate", "colour"])
def test_each_picture_is_changed_by_its_own_draw_and_stays_in_bounds(name) -> None:
    x = torch.rand(64, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    key = random.keys(0, torch.arange(64))
    found = changed((name,), x, key, (0.0, 1.0))
    assert found.shape == x.shape
    assert 0 <= found.min() <= found.max() <= 1
    moved = (found != x).flatten(1).any(1)
    assert moved.sum() > 20
    assert torch.allclose(changed((name,), x[5:7], key[5:7], (0.0, 1.0)), found[5:7], atol=1e-6)
    assert torch.equal(changed((), x, key, (0.0, 1.0)), x)


def test_flips_are_flips_and_shifts_are_shifts() -> None:
    x = torch.rand(200, 1, 8, 16)
    key = random.keys(0, torch.arange(200))
    flipped = changed(("flip",), x, key, None)
    turned = (flipped == x.flip(3)).flatten(1).all(1)
    assert (turned | (flipped == x).flatten(1).all(1)).all()
    assert 60 < turned.sum() < 140
    shifted = changed(("shift",), x, key, None)
    offsets = set()
    for row in range(200):
        for down in (-1, 0, 1):
            for right in (-2, -1, 0, 1, 2):
                if torch.equal(shifted[row, 0, 1:7, 2:14], x[row, 0, 1 + down : 7 + down, 2 + right : 14 + right]):
                    offsets.add((down, right))
                    break
    assert len(offsets) == 15

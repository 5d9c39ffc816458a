"""Neighbours, and the naming of clusters, against brute force and scipy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sparring.defenses.data import in_memory
from sparring.defenses.imsat import assigned, matched, neighbour_distances


def test_a_row_is_no_neighbour_of_its_own() -> None:
    x = torch.rand(50, 2, 3)
    x[7] = x[3]
    found = neighbour_distances(in_memory(x), 2)
    for row in range(50):
        distance = sorted(float((x[row] - x[other]).norm()) for other in range(50) if other != row)
        assert found[row] == pytest.approx(distance[1], abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 25])
def test_the_assignment_is_the_cheapest(size: int) -> None:
    generator = np.random.default_rng(size)
    for _ in range(10):
        cost = generator.integers(-20, 20, (size, size))
        found = assigned(cost.tolist())
        rows, columns = linear_sum_assignment(cost)
        assert sorted(found) == list(range(size))
        assert sum(cost[row, column] for row, column in enumerate(found)) == cost[rows, columns].sum()


def test_clusters_are_named_in_the_best_way() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    assert matched(torch.tensor([2, 2, 2, 0, 0, 1, 1, 1]), labels) == 8
    assert matched(torch.tensor([1, 1, 0, 0, 0, 2, 2, 0]), labels) == 6
    assert matched(torch.zeros(8, dtype=torch.int64), labels) == 3

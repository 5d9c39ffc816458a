"""What clustering needs beside its objective: how far a row's neighbours are, and how well clusters match classes."""

import torch
from torch import Tensor

from sparring.defenses.data import Data

_CHUNK = 1024


def neighbour_distances(data: Data, neighbour: int) -> Tensor:
    """(N,) l2 distance of each row to its `neighbour`-th nearest other row, in units of the data.

    Raises:
        ValueError: there are not so many other rows.
    """
    if neighbour >= data.size:
        raise ValueError(f"neighbour: each row has {data.size - 1} others, not {neighbour}")
    rows = data.rows(torch.arange(data.size)).flatten(1)
    found = []
    for part in torch.split(torch.arange(data.size), _CHUNK):
        distance = torch.cdist(rows[part], rows)
        distance[torch.arange(len(part)), part] = float("inf")  # a row is no neighbour of its own
        found.append(distance.kthvalue(neighbour, dim=1).values)
    return torch.cat(found)


def matched(clusters: Tensor, labels: Tensor) -> int:
    """Rows that are right when clusters are named after classes in the best way; both (N,) int64."""
    count = int(max(clusters.max(), labels.max())) + 1
    table = torch.zeros(count, count, dtype=torch.int64)
    table.index_put_((clusters, labels), torch.ones_like(labels), accumulate=True)
    chosen = assigned([[-value for value in row] for row in table.tolist()])
    return sum(int(table[row, column]) for row, column in enumerate(chosen))


def assigned(cost: list[list[int]]) -> list[int]:
    """The column of each row in the cheapest assignment of a square table (Kuhn 1955; shortest augmenting paths, O(n^3))."""
    size = len(cost)
    up, left, owner = [0] * size, [0] * (size + 1), [-1] * (size + 1)  # column `size` is where each search begins
    for row in range(size):
        owner[size], column = row, size
        least, back, seen = [float("inf")] * size, [size] * size, [False] * (size + 1)
        while owner[column] >= 0:
            seen[column], here = True, owner[column]
            for other in range(size):
                if not seen[other] and (reduced := cost[here][other] - up[here] - left[other]) < least[other]:
                    least[other], back[other] = reduced, column
            nearest = min((other for other in range(size) if not seen[other]), key=lambda other: least[other])
            step = int(least[nearest])
            for other in range(size + 1):
                if seen[other]:
                    up[owner[other]] += step
                    left[other] -= step
                elif other < size:
                    least[other] -= step
            column = nearest
        while column != size:
            owner[column], column = owner[back[column]], back[column]
    columns = [0] * size
    for column, row in enumerate(owner[:size]):
        columns[row] = column
    return columns

"""Where broken rows went: from which class to which, and how far."""

import numpy as np
from numpy.typing import NDArray

from sparring.contract.report import Move
from sparring.contract.threat import Threat

MOST = 400
"""Pairs of classes that a report keeps; twenty classes have no more."""
PARTS = 20
"""Parts of eps that distances are counted in."""


def moves(labels: NDArray[np.int64], clean: NDArray[np.int64], worst: NDArray[np.int64]) -> tuple[Move, ...]:
    """The pairs (class, other class that is predicted), those that the attacks added most rows to first; MOST of them.

    Args:
        labels: (rows,).
        clean: (rows,): predictions on the rows as they are; -1 for no class.
        worst: (rows,): predictions in the worst case of a threat.
    """
    counts: dict[tuple[int, int], list[int]] = {}
    for at, predictions in enumerate((clean, worst)):
        wrong = predictions != labels
        pairs, rows = np.unique(np.stack([labels[wrong], predictions[wrong]]), axis=1, return_counts=True)
        for label, prediction, count in zip(*pairs.tolist(), rows.tolist(), strict=True):
            counts.setdefault((label, prediction), [0, 0])[at] = count
    ranked = sorted(counts.items(), key=lambda pair: (pair[1][0] - pair[1][1], -pair[1][1], pair[0]))
    return tuple(Move(label=pair[0], prediction=pair[1], clean=rows[0], worst=rows[1]) for pair, rows in ranked[:MOST])


def counted(distances: NDArray[np.float64], threat: Threat) -> tuple[int, ...]:
    """How many distances lie in each of PARTS equal parts of [0, eps]; for l0, in as many as numbers may change, if fewer.

    Args:
        distances: ||x' - x|| of rows that an attack broke, none above eps.
        threat: says eps and the norm.
    """
    parts = max(1, min(PARTS, int(threat.radius))) if threat.norm == "l0" else PARTS
    ends = np.linspace(0, threat.radius, parts + 1)[1:-1]
    return tuple(np.bincount(np.searchsorted(ends, distances), minlength=parts).tolist())

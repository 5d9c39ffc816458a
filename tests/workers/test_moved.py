import numpy as np
import pytest

from sparring.contract.report import Move
from sparring.contract.threat import Threat
from sparring.workers.moved import MOST, PARTS, counted, moves

LINF = Threat(norm="linf", eps=1.0)


def of(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_moves_are_counted_as_it_was_and_in_the_worst_case():
    labels, clean, worst = of(0, 0, 0, 1, 1, 2), of(0, 0, 1, 1, 0, 2), of(1, 2, 1, 1, 0, -1)
    assert moves(labels, clean, worst) == (
        Move(label=0, prediction=1, clean=1, worst=2),
        Move(label=0, prediction=2, clean=0, worst=1),
        Move(label=2, prediction=-1, clean=0, worst=1),
        Move(label=1, prediction=0, clean=1, worst=1),
    )
    assert moves(labels, labels, labels) == ()


def test_a_thousand_classes_leave_no_more_than_so_many_moves_the_most_frequent_first():
    labels = np.arange(3000) % 1000
    worst = (labels + 1 + np.arange(3000) // 1000) % 1000
    worst[[0, 1000, 2000]] = 7
    found = moves(labels, labels, worst)
    assert len(found) == MOST
    assert found[0] == Move(label=0, prediction=7, clean=0, worst=3)


@pytest.mark.parametrize("threat", [LINF, Threat(norm="l2", eps="8/255"), Threat(norm="linf", eps=0)])
def test_every_distance_falls_into_one_part(threat):
    distances = np.linspace(0, threat.radius, 101)
    counts = counted(distances, threat)
    assert len(counts) == PARTS
    assert sum(counts) == 101
    assert sum(counted(distances[:0], threat)) == 0


def test_a_part_holds_its_upper_end():
    assert counted(np.array([0.0, 0.05, 0.0500001, 1.0]), LINF) == (2, 1, *[0] * (PARTS - 3), 1)


@pytest.mark.parametrize(("eps", "parts"), [(3, 3), (500, PARTS), (0.5, 1)])
def test_numbers_that_changed_have_parts_of_their_own(eps, parts):
    counts = counted(np.array([float(min(eps, 1)), float(eps)]), Threat(norm="l0", eps=eps))
    assert len(counts) == parts
    assert (counts[0], counts[-1]) == ((1, 1) if parts > 1 else (2, 2))

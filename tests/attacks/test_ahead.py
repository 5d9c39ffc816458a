"""Looks taken ahead: many of a row in one pass, and what comes of them is what one look at a time comes to."""

import pytest
import torch
from attacks.cases import Spy, attacked, cnn, pictures, problem
from torch import Tensor, nn

from sparring.attacks import windows
from sparring.attacks.access import Scores, Target, ahead, near
from sparring.attacks.search import search_copy
from sparring.contract.attacks import SparseRS, Square

TILE = 32
SPEC = Square(queries=60, restarts=2)


class Passes(nn.Module):
    """Counts how often a model is passed through."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.count = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        scores: Tensor = self.model(x)
        return scores


def judged(judge: int) -> Target:
    """A search copy of one network, judged by itself or by another one, which refuses many of its successes."""
    return Target(cnn(judge).eval().requires_grad_(False), search_copy(cnn(0).eval().requires_grad_(False))[0], TILE)


@pytest.mark.parametrize("judge", [0, 3], ids=["agreed", "refused"])
@pytest.mark.parametrize(("stop", "targeted"), [pytest.param(False, False, marks=pytest.mark.slow), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("norm", "eps", "rows", "near"),
    [("linf", 0.05, 1, True), ("linf", 0.12, 5, False), ("linf", 0.05, 16, True), ("l2", 0.5, 5, False), ("l1", 3.0, 3, True)],
)
def test_looks_ahead_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, norm: str, eps: float, rows: int, *, stop: bool, targeted: bool, judge: int, near: bool
) -> None:
    monkeypatch.setattr(windows, "_WORTH", 0 if near else float("inf"))
    target, x = judged(judge), pictures(rows)
    labels = target.labels(x)
    asked = problem(x, (labels + 1) % 5 if targeted else labels, norm, eps, (0.0, 1.0), stop=stop, targeted=targeted)
    found, one_by_one = attacked(SPEC, eps, target, asked), attacked(SPEC, eps, Spy(target, "score"), asked)
    for name, got, wanted in zip(found._fields, found, one_by_one, strict=True):
        assert torch.equal(got, wanted), name


@pytest.mark.parametrize("targeted", [False, True])
def test_looks_ahead_of_sparse_rs_change_no_bit(*, targeted: bool) -> None:
    target, x = judged(3), pictures(5)
    labels = target.labels(x)
    asked = problem(x, (labels + 1) % 5 if targeted else labels, "l0", 6.0, (0.0, 1.0), targeted=targeted)
    spec = SparseRS(queries=60, restarts=2)
    found, one_by_one = attacked(spec, 6.0, target, asked), attacked(spec, 6.0, Spy(target, "score"), asked)
    for name, got, wanted in zip(found._fields, found, one_by_one, strict=True):
        assert torch.equal(got, wanted), name


def test_few_rows_take_few_passes() -> None:
    plain = judged(0)
    x = pictures(2)
    target = Target(plain.judge, Passes(plain.search), TILE)
    asked = problem(x, target.labels(x), "linf", 0.001, (0.0, 1.0))
    found = attacked(Square(queries=150), 0.001, target, asked)
    assert found.queries.tolist() == [151, 151]
    assert isinstance(target.search, Passes)
    assert 150 / 24 <= target.search.count < 75


@pytest.mark.parametrize(("rows", "looks"), [(1, 24), (2, 16), (3, 10), (16, 2), (17, 1), (32, 1), (40, 1)])
def test_as_many_looks_as_a_pass_has_room_for(rows: int, looks: int) -> None:
    target = judged(0)
    assert ahead(target, rows) == ahead(Scores(target), rows) == looks


def test_who_charges_for_a_look_is_asked_for_one_at_a_time() -> None:
    assert ahead(Spy(judged(0), "score"), 1) == 1


def test_what_goes_by_windows_has_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_WORTH", 0)
    target = judged(0)
    near(target, pictures(2))
    assert (ahead(target, 8), ahead(target, 16), ahead(target, 32)) == (16, 8, 4)

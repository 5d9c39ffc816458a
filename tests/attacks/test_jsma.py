"""Which entries the saliency map chooses, and how far they go."""

import pytest
import torch
from attacks.cases import cnn, pictures, problem, target
from attacks.test_minimal import boxed
from torch import Tensor, nn

from sparring.attacks import catalogue
from sparring.contract.attacks import JSMA

INF = float("inf")


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    model = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weight))
        model.bias.copy_(torch.tensor(bias))
    return model


def end(spec: JSMA, model: nn.Module, x: Tensor, label: int, *, targeted: bool = False) -> Tensor:
    asked = problem(x, torch.full((len(x),), label), "l0", INF, (0.0, 1.0), stop=False, targeted=targeted)
    return catalogue.run(spec, INF, target(model), asked).x


def test_between_two_classes_a_plane_apart_no_fewer_entries_would_do() -> None:
    """Each entry to the limit where it gains most, the largest gains first: on an affine model that is exact."""
    model, x, labels, exact = boxed("l0")
    asked = problem(x, labels, "l0", INF, (0.0, 1.0), stop=False)
    outcome = catalogue.run(JSMA(), INF, target(model), asked)
    assert torch.equal(asked.ball.distance(outcome.x), exact)
    moved = outcome.x != x
    assert set(outcome.x[moved].tolist()) <= {0.0, 1.0}


def test_by_logits_an_entry_must_raise_the_class_and_lower_the_sum_of_the_others() -> None:
    """The first entry raises the class most, and the others a little; the second does both parts; the third less of both, downward."""
    model = linear([[1.0, -1.0, 1.0], [5.0, 2.0, -1.0], [1.0, -1.0, 1.0]], [3.5, 0.0, -9.0])
    x = torch.full((1, 3), 0.5)
    moved = end(JSMA(saliency="logits", targets=1), model, x, 0)
    assert torch.equal(moved, torch.tensor([[0.5, 1.0, 0.5]]))
    assert torch.equal(end(JSMA(targets=1), model, x, 0), torch.tensor([[1.0, 0.5, 0.5]]))


def test_by_logits_a_class_that_rises_alone_is_reached_too() -> None:
    model = linear([[0.0, 0.0], [3.0, 1.0]], [1.0, 0.0])
    assert torch.equal(end(JSMA(saliency="logits"), model, torch.zeros(1, 2), 0), torch.tensor([[1.0, 0.0]]))


def test_an_entry_goes_down_where_that_helps() -> None:
    model = linear([[1.0, 0.0], [-5.0, 1.0]], [0.0, 0.5])
    for saliency in ("logits", "softmax"):
        moved = end(JSMA(saliency=saliency), model, torch.tensor([[0.9, 0.5]]), 0)
        assert moved[0, 0] == 0.0


def test_what_an_entry_can_still_move_counts() -> None:
    """The steepest entry is all but at its limit."""
    model = linear([[0.0, 0.0], [10.0, 4.0]], [10.0, 0.0])
    assert torch.equal(end(JSMA(), model, torch.tensor([[0.99, 0.0]]), 0), torch.tensor([[0.99, 1.0]]))


def test_entries_move_by_theta_at_a_time_and_never_back() -> None:
    model, x = cnn(), pictures(12)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l0", INF, (0.0, 1.0), stop=False)
    outcome = catalogue.run(JSMA(theta=0.25, steps=60, targets=2), INF, target(model), asked)
    assert outcome.success.any()
    gone = (outcome.x - x).abs()
    whole = (gone / 0.25 - (gone / 0.25).round()).abs() < 1e-5
    assert (whole | (outcome.x == 0) | (outcome.x == 1)).all()


@pytest.mark.parametrize("saliency", ["logits", "softmax"])
def test_more_targets_never_change_more_entries(saliency: str) -> None:
    model, x = cnn(), pictures(24)
    labels = target(model).labels(x)
    asked = problem(x, labels, "l0", INF, (0.0, 1.0), stop=False)
    ends = [catalogue.run(JSMA(saliency=saliency, steps=30, targets=n), INF, target(model), asked) for n in (1, 4)]
    assert (ends[1].success >= ends[0].success).all()
    both = ends[0].success
    assert (asked.ball.distance(ends[1].x)[both] <= asked.ball.distance(ends[0].x)[both]).all()

"""The benchmark believes no tool: it looks for itself at every point that is returned."""

import pytest
import torch
from judge import SLACK, judge
from torch import nn

from sparring.workers.zoo import Mlp


def linear(weight: list[list[float]]) -> nn.Module:
    model = Mlp({"0": (len(weight[0]), len(weight), False)}).eval()
    model.get_parameter("0.weight").data = torch.tensor(weight)
    return model


# Class 0 where the first number is the larger one.
MODEL = linear([[1.0, 0.0], [0.0, 1.0]])
X = torch.tensor([[0.6, 0.5]])
Y = torch.tensor([0])


@pytest.mark.parametrize(
    ("moved", "robust", "outside"),
    [
        ([0.6, 0.5], True, 0),
        ([0.5, 0.6], False, 0),
        ([0.5, 0.6 + SLACK / 2], False, 0),
        ([0.5, 0.6 + 2 * SLACK], True, 1),
        ([0.55, 0.55], True, 0),  # a tie is no success
        ([float("nan"), 0.5], True, 1),
    ],
)
def test_a_row_is_broken_by_a_point_inside_that_is_misclassified(moved: list[float], robust: bool, outside: int) -> None:
    verdict = judge(MODEL, X, Y, torch.tensor([moved]), eps=0.1)
    assert (verdict.robust.tolist(), verdict.outside) == ([robust], outside)


def test_the_box_holds_without_slack() -> None:
    x = torch.tensor([[1.0, 1.0]])
    assert judge(MODEL, x, Y, torch.tensor([[0.95, 1.0000001]]), eps=0.1).outside == 1
    assert not judge(MODEL, x, Y, torch.tensor([[0.95, 1.0]]), eps=0.1).robust.any()


def test_a_row_that_was_wrong_never_holds() -> None:
    assert not judge(MODEL, X, torch.tensor([1]), torch.tensor([[0.5, 0.6]]), eps=0.1).robust.any()


def test_rows_on_which_float64_says_otherwise_are_counted() -> None:
    # In float32 the second class's 2^24 + 1 rounds to the first one's 2^24.
    model = linear([[2.0**24, 0.0], [2.0**24, 1.0]])
    verdict = judge(model, torch.tensor([[1.0, 0.0]]), Y, torch.tensor([[1.0, 1.0]]), eps=1.0)
    assert (verdict.robust.tolist(), verdict.borderline) == ([True], 1)
    assert next(model.parameters()).dtype == torch.float32


def test_one_point_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"returned shape \(2, 2\) for rows of shape \(1, 2\)"):
        judge(MODEL, X, Y, X.repeat(2, 1), eps=0.1)

"""What is climbed, against the formulas written out number by number."""

import math

import pytest
import torch
from torch import Tensor, nn

from sparring.attacks.losses import LOSSES, Loss, ce, difference, dlr, kl, margin, scaled
from sparring.attacks.problem import Goal

LOGITS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
LABELS = torch.arange(40) % 6


def each(loss: Loss, goal: Goal, logits: Tensor = LOGITS) -> list[tuple[list[float], int, float]]:
    """(logits, label, loss) of each row, in numbers."""
    return list(zip(logits.tolist(), goal.labels.tolist(), loss(logits, goal).tolist(), strict=True))


def softmax(z: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in z)
    return [math.exp(value) / total for value in z]


@pytest.mark.parametrize("targeted", [False, True], ids=["away", "toward"])
def test_cross_entropy_is_the_log_odds_against_the_label(targeted: bool) -> None:
    for z, y, found in each(ce, Goal(LABELS, targeted)):
        p = softmax(z)[y]
        assert found == pytest.approx((-1 if targeted else 1) * math.log((1 - p) / p), abs=1e-9)


@pytest.mark.parametrize("targeted", [False, True], ids=["away", "toward"])
def test_the_margin_is_by_how_much_the_goal_is_passed(targeted: bool) -> None:
    for z, y, found in each(margin, Goal(LABELS, targeted)):
        others = max(value for at, value in enumerate(z) if at != y)
        assert found == (z[y] - others if targeted else others - z[y])


@pytest.mark.parametrize("classes", [3, 4, 6])
def test_dlr_is_equation_6(classes: int) -> None:
    logits, goal = LOGITS[:, :classes], Goal(LABELS % classes)
    for z, y, found in each(dlr, goal, logits):
        ranked, others = sorted(z, reverse=True), max(value for at, value in enumerate(z) if at != y)
        assert found == pytest.approx(-(z[y] - others) / (ranked[0] - ranked[2] + 1e-12))


@pytest.mark.parametrize("classes", [3, 4, 6])
@pytest.mark.parametrize("way", ["singled out", "to be reached"])
def test_dlr_with_a_class_to_aim_at_is_equation_7_and_with_three_classes_the_third_stands_alone(classes: int, way: str) -> None:
    logits, labels = LOGITS[:, :classes], LABELS % classes
    aim = (labels + 1) % classes
    goal = Goal(labels, toward=aim) if way == "singled out" else Goal(aim, targeted=True)
    for (z, _, found), y, t in zip(each(dlr, goal, logits), labels.tolist(), aim.tolist(), strict=True):
        ranked = sorted(z, reverse=True)
        rest = (ranked[2] + ranked[3]) / 2 if classes > 3 else ranked[2]
        ahead = z[t] - z[y] if way == "singled out" else z[t] - max(value for at, value in enumerate(z) if at != t)
        assert found == pytest.approx(ahead / (ranked[0] - rest + 1e-12))


def test_dlr_of_two_classes_is_the_margin() -> None:
    for goal in (Goal(LABELS % 2), Goal(LABELS % 2, targeted=True)):
        assert torch.equal(dlr(LOGITS[:, :2], goal), margin(LOGITS[:, :2], goal))
    aimed = Goal(LABELS % 2, toward=1 - LABELS % 2)
    assert torch.equal(dlr(LOGITS[:, :2], aimed), margin(LOGITS[:, :2], aimed))


def test_the_difference_is_between_the_class_aimed_at_and_the_one_to_leave() -> None:
    aim = (LABELS + 2) % 6
    for (z, y, found), t in zip(each(difference, Goal(LABELS, toward=aim)), aim.tolist(), strict=True):
        assert found == z[t] - z[y]
    clean = LOGITS.flip(0)
    for (z, t, found), k in zip(each(difference, Goal(LABELS, targeted=True, reference=clean)), clean.argmax(1).tolist(), strict=True):
        assert found == z[t] - z[k]
    assert torch.equal(difference(LOGITS, Goal(LABELS)), margin(LOGITS, Goal(LABELS)))
    assert torch.equal(difference(LOGITS, Goal(LABELS, targeted=True)), margin(LOGITS, Goal(LABELS, targeted=True)))


@pytest.mark.parametrize("targeted", [False, True], ids=["away", "toward"])
def test_scaled_is_cross_entropy_of_logits_over_their_gap_which_has_no_slope_of_its_own(targeted: bool) -> None:
    goal = Goal(LABELS, targeted)
    for z, y, found in each(scaled, goal):
        gap = max(z) - sum(z) / 6
        p = softmax([value / gap for value in z])[y]
        assert found == pytest.approx((-1 if targeted else 1) * math.log((1 - p) / p), abs=1e-9)
    logits = LOGITS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(scaled(logits, goal).sum(), logits)
    gap = (LOGITS.amax(1) - LOGITS.mean(1))[:, None]
    fixed = (LOGITS / gap).requires_grad_()
    (wanted,) = torch.autograd.grad(ce(fixed, goal).sum(), fixed)
    assert torch.allclose(slope, wanted / gap)


@pytest.mark.parametrize("loss", [dlr, scaled])
@pytest.mark.parametrize("goal", [Goal(LABELS), Goal(LABELS, targeted=True)], ids=["away", "toward"])
def test_the_size_of_the_logits_changes_neither_scale_free_loss(loss: Loss, goal: Goal) -> None:
    for factor in (1e-3, 10.0, 1e6):
        assert torch.allclose(loss(LOGITS * factor, goal), loss(LOGITS, goal), rtol=1e-6)


def test_kl_is_that_of_torch_and_flat_at_the_clean_row() -> None:
    clean = LOGITS.flip(0)
    goal = Goal(LABELS, reference=clean)
    wanted = nn.functional.kl_div(LOGITS.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)
    assert torch.allclose(kl(LOGITS, goal), wanted)
    assert (kl(LOGITS, goal) > 0).all()
    logits = clean.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kl(logits, goal).sum(), logits)
    assert torch.allclose(kl(clean, goal), torch.zeros(40, dtype=torch.float64), atol=1e-12)
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_equal_logits_are_a_loss_like_another(loss: Loss) -> None:
    """No division by a gap of zero, and a slope that is a number."""
    logits = torch.full((2, 5), 3.0, requires_grad=True)
    goal = Goal(torch.tensor([0, 4]), reference=torch.zeros(2, 5))
    found = loss(logits, goal)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert found.isfinite().all()
    assert slope.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_row_has_its_loss_whatever_the_others_are(loss: Loss) -> None:
    goal = Goal(LABELS, reference=LOGITS.flip(0))
    part = torch.tensor([7, 3, 31])
    alone = loss(LOGITS[part], Goal(LABELS[part], reference=goal.reference[part]))
    assert torch.allclose(loss(LOGITS, goal)[part], alone, rtol=1e-12)

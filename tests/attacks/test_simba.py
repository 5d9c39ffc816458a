"""SimBA: an orthonormal basis, tried direction by direction, and a loss that never falls."""

import pytest
import torch
from attacks.cases import affine, cnn, pictures, problem, target

from sparring.attacks import catalogue
from sparring.attacks.losses import ce
from sparring.attacks.pictures import picture
from sparring.attacks.simba import cosines, pace, pixels, search, waves
from sparring.contract.attacks import FGSM, SimBA


@pytest.mark.parametrize("size", [1, 2, 7, 28])
def test_the_cosines_are_orthonormal(size: int) -> None:
    basis = cosines(size).double()
    assert torch.allclose(basis @ basis.T, torch.eye(size, dtype=torch.float64), atol=1e-6)
    turns = ((basis[:, 1:] > 0) != (basis[:, :-1] > 0)).sum(1)
    assert turns.tolist() == list(range(size)), "each wave has one half wave more than the one before"


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 4), (5, 4, 3)])
def test_the_directions_of_a_picture_are_orthonormal_and_all_there_are(shape: tuple[int, ...]) -> None:
    seen, size = picture(shape), torch.Size(shape).numel()
    like = torch.zeros(size, *shape)
    for direction in (pixels, waves(seen)):
        every = direction(torch.arange(size), like)
        assert every.shape == like.shape
        assert torch.allclose(every.flatten(1) @ every.flatten(1).T, torch.eye(size), atol=1e-6)


def test_slow_waves_come_first_and_those_of_equal_pace_in_any_order() -> None:
    first = pace(picture((1, 4, 4)))
    assert first[:5].tolist() == [0, 1, 2, 3, 1]
    asked = problem(pictures(6), torch.zeros(6, dtype=torch.int64), "l2", 1.0)
    order = search(pixels, pace(picture((1, 8, 8))), 0.1).init(asked, asked.x).order
    paces = pace(picture((1, 8, 8)))[order]
    assert (paces.diff() >= 0).all()
    assert not torch.equal(order[0], order[1])
    assert torch.equal(order.sort(1).values, torch.arange(64).expand(6, 64))


@pytest.mark.parametrize("basis", ["pixel", "dct"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_queries_never_lower_the_loss(basis: str, norm: str) -> None:
    model, x = cnn(), pictures(16)
    labels = target(model).labels(x)
    asked = problem(x, labels, norm, 0.05, (0.0, 1.0), stop=False)
    ends = [catalogue.run(SimBA(queries=queries, basis=basis), 0.05, target(model), asked).x for queries in (10, 20, 40, 80)]
    losses = [ce(model(end).detach(), asked.goal) for end in ends]
    for before, after in zip([ce(model(x).detach(), asked.goal), *losses], losses, strict=False):
        assert (after >= before - 1e-6).all()
    assert (losses[-1] > losses[0]).any()


def test_once_through_all_entries_a_linear_model_is_at_its_worst() -> None:
    """Every entry goes to the better edge of the box: where one signed step of FGSM ends."""
    case = affine()
    asked = problem(case.x, case.labels, "linf", 0.25, stop=False)
    ended = catalogue.run(SimBA(queries=2 * 12 + 3, share=1.0), 0.25, target(case.model), asked)
    assert torch.allclose(ended.x, catalogue.run(FGSM(), 0.25, target(case.model), asked).x, atol=1e-6)

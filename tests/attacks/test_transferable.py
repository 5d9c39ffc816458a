"""Looking ahead, at halves and at shifts: at their neutral settings MI-FGSM to the bit, and their gradients by hand."""

import pytest
import torch
from attacks.cases import Spy
from torch import Tensor, nn
from torch.nn import functional

from sparring.attacks import catalogue
from sparring.attacks.access import Target
from sparring.attacks.losses import ce
from sparring.attacks.norms import ball
from sparring.attacks.parts import backprop
from sparring.attacks.problem import Goal, Problem, problem
from sparring.attacks.random import keys
from sparring.attacks.transferable import blurred, halved
from sparring.contract.attacks import BIM, MIFGSM, NIFGSM, SIFGSM, TIFGSM

EPS = 0.1


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 36, 3)).requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(7, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def target(model: nn.Module) -> Target:
    return Target(model, model, 16)


def asked(model: nn.Module, x: Tensor) -> Problem:
    eps = torch.full((len(x),), EPS, dtype=torch.float64)
    return problem(Goal(target(model).labels(x)), ball("linf", x, eps, (0.0, 1.0)), keys(0, torch.arange(len(x))), stop=False)


@pytest.mark.parametrize("neutral", [SIFGSM(copies=1), TIFGSM(reach=0)], ids=lambda spec: spec.kind)
def test_at_neutral_settings_it_is_mifgsm_to_the_bit(neutral: MIFGSM, model: nn.Module, x: Tensor) -> None:
    ours, plain = (catalogue.run(spec, EPS, target(model), asked(model, x)) for spec in (neutral, MIFGSM()))
    assert torch.equal(ours.x, plain.x)
    assert torch.equal(ours.queries, plain.queries)


def test_without_momentum_there_is_nothing_ahead(model: nn.Module, x: Tensor) -> None:
    ours, plain = (catalogue.run(spec, EPS, target(model), asked(model, x)) for spec in (NIFGSM(decay=0.0), BIM()))
    assert torch.equal(ours.x, plain.x)


def test_gradients_are_taken_where_the_momentum_leads_and_the_last_look_is_at_the_point_itself(model: nn.Module, x: Tensor) -> None:
    seen: list[Tensor] = []

    class Watching(Spy):
        def slope(self, loss, rows):
            seen.append(rows)
            return super().slope(loss, rows)

        def logits(self, rows):
            seen.append(rows)
            return super().logits(rows)

    given, alpha, decay = asked(model, x), 0.02, 0.7
    catalogue.run(NIFGSM(steps=3, alpha=alpha, decay=decay), EPS, Watching(target(model), "gradient"), given)
    here, total = x, torch.zeros_like(x)
    for step, looked in enumerate(seen):
        ahead = alpha * decay * total if step < 3 else 0
        assert torch.allclose(looked, given.ball.project(here + ahead), atol=1e-6)
        grad = backprop(ce)(target(model), given, looked, slope=True).grad
        assert grad is not None
        total = decay * total + grad / grad.abs().mean((1, 2, 3), keepdim=True)
        here = given.ball.project(here + alpha * total.sign())
    assert len(seen) == 4


def test_halves_are_averaged_and_counted(model: nn.Module, x: Tensor) -> None:
    given, spy = asked(model, x)._replace(moving=torch.arange(len(x)) != 2), Spy(target(model), "gradient")
    point = halved(ce, 3)(spy, given, x, slope=True)
    leaf = x.clone().requires_grad_()
    mean = sum(ce(model(leaf / 2**turn), given.goal) for turn in range(3)) / 3
    (wanted,) = torch.autograd.grad(mean.sum(), leaf)
    assert point.grad is not None
    assert torch.allclose(point.grad[given.moving], wanted[given.moving], atol=1e-6)
    assert torch.as_tensor(point.looks).tolist() == [3, 3, 1, 3, 3, 3, 3]
    assert spy.asked == 3 * len(x) - 2
    plain = backprop(ce)(target(model), given, x, slope=True)
    assert torch.equal(point.loss, plain.loss)
    assert torch.equal(point.margin, plain.margin)


@pytest.mark.parametrize("reach", [1, 4])
def test_a_blurred_gradient_is_the_mean_over_shifts(reach: int, model: nn.Module, x: Tensor) -> None:
    given = asked(model, x)
    point = blurred(backprop(ce), reach)(target(model), given, x, slope=True)
    plain = backprop(ce)(target(model), given, x, slope=True).grad
    assert plain is not None
    weight = torch.exp(-0.5 * (3 * torch.arange(-reach, reach + 1) / reach) ** 2)
    weight = weight[:, None] * weight / weight.sum() ** 2
    wide = functional.pad(plain, (reach,) * 4)
    wanted = sum(
        weight[down, across] * wide[:, :, down : down + 6, across : across + 6]
        for down in range(2 * reach + 1)
        for across in range(2 * reach + 1)
    )
    assert torch.allclose(point.grad, wanted, atol=1e-6)


def test_rows_that_are_no_pictures_are_not_blurred() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(9, 3).requires_grad_(False), torch.rand(5, 9)
    ours, plain = (catalogue.run(spec, EPS, target(model), asked(model, x)) for spec in (TIFGSM(), MIFGSM()))
    assert torch.equal(ours.x, plain.x)

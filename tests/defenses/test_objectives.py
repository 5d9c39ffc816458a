"""What is minimised, against formulas written down anew."""

import pytest
import torch
from defenses.cases import batch, digits, mlp
from torch import nn

from sparring.attacks import random
from sparring.contract.defenses import MART, TRADES, LabelSmoothing, Noise
from sparring.defenses import noise
from sparring.defenses.catalogue import recipe
from sparring.defenses.data import Batch, facts
from sparring.defenses.objectives import kl
from sparring.defenses.recipe import Objective
from sparring.defenses.views import Views

functional = nn.functional


def objective(spec) -> Objective:
    return recipe(spec, facts(digits()), digits()).objective


@pytest.fixture
def views() -> Views:
    return Views(mlp())


@pytest.fixture
def moved() -> tuple[Batch, torch.Tensor]:
    given = batch()
    return given, (given.x + 0.1 * torch.rand(given.x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def test_kl_is_that_of_torch_and_slopes_go_through_both_sides() -> None:
    p, q = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    expected = functional.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)
    assert torch.allclose(kl(p, q), expected)
    assert all(slope.abs().sum() > 0 for slope in torch.autograd.grad(kl(p, q).sum(), (p, q)))
    assert (kl(p, p) == 0).all()


def test_trades(views: Views, moved) -> None:
    given, x = moved
    p, q = (views.model(rows).softmax(1) for rows in (given.x, x))
    expected = -p[range(12), given.y].log().mean() + 6 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(objective(TRADES())(views, given, x), expected)


def test_mart(views: Views, moved) -> None:
    given, x = moved
    p, q = (views.model(rows).softmax(1) for rows in (given.x, x))
    rival = torch.stack([row[[k for k in range(10) if k != label]].max() for row, label in zip(q, given.y, strict=True)])
    own = range(12), given.y
    expected = -q[own].log() - (1.0001 - rival).log() + 5 * (p * (p / q).log()).sum(1) * (1 - p[own])
    assert torch.allclose(objective(MART())(views, given, x), expected.mean(), atol=1e-6)


def test_label_smoothing(views: Views) -> None:
    given = batch()
    told = views.model(given.x).log_softmax(1)
    expected = -(0.8 * told[range(12), given.y] + 0.2 * told.mean(1)).mean()
    assert torch.allclose(objective(LabelSmoothing(share=0.2))(views, given, given.x), expected)


def test_samples_of_noise_are_averaged_and_differ(views: Views) -> None:
    given = batch()
    for where in ("input", "layers", "weights"):
        one, three = (objective(Noise(where=where, size=0.5, samples=count))(views, given, given.x) for count in (1, 3))
        assert not torch.equal(one, three)
        assert torch.equal(one, objective(Noise(where=where, size=0.5))(views, given, given.x))


@pytest.mark.parametrize("distribution", ["gaussian", "uniform", "bernoulli"])
def test_noise_has_the_mean_and_the_size_it_is_asked_for(distribution) -> None:
    x = torch.full((400, 100), 2.0)
    drawn = noise.on_rows(distribution, 0.3, 2.0)(x, random.keys(0, torch.arange(400)))
    again = noise.anywhere(distribution, 0.3)(x, torch.Generator().manual_seed(0))
    size = {"gaussian": 0.6, "uniform": 0.6 / 3**0.5, "bernoulli": 2 * (0.3 / 0.7) ** 0.5}[distribution]
    for found in (drawn, again):
        assert abs(float(found.mean()) - 2) < 0.02
        assert abs(float(found.std()) - size) < 0.02
    if distribution == "uniform":
        assert 1.4 <= drawn.min() <= drawn.max() <= 2.6
    if distribution == "bernoulli":
        assert set(drawn.unique().tolist()) == {0.0, float(torch.tensor(2.0) * (1 / torch.tensor(0.7)))}


def test_noise_on_the_weights_teaches_the_weights(views: Views) -> None:
    given = batch()
    loss = objective(Noise(where="weights", size=0.1))(views, given, given.x)
    slopes = torch.autograd.grad(loss, list(views.model.parameters()))
    plain = torch.autograd.grad(functional.cross_entropy(views.model(given.x), given.y), list(views.model.parameters()))
    for one, other in zip(slopes, plain, strict=True):
        assert 0 < float((one - other).norm() / other.norm()) < 1

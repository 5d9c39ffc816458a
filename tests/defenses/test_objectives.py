"""What is minimised, against formulas written down anew."""

import pytest
import torch
from defenses.cases import batch, digits, mlp
from torch import nn

from sparring.attacks import random
from sparring.contract.defenses import ALP, MART, TRADES, LabelSmoothing, Mixup, Noise
from sparring.defenses import noise, objectives
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


def test_noise_at_one_layer_leaves_the_others_alone(views: Views) -> None:
    given = batch()
    every, first, second = (
        objective(Noise(where="layers", distribution="bernoulli", layers=layers))(views, given, given.x) for layers in ((), (1,), (2,))
    )
    plain = functional.cross_entropy(views.model(given.x), given.y)
    assert len({float(loss.detach()) for loss in (every, first, second, plain)}) == 4
    none = objective(Noise(where="layers", layers=(9,)))(views, given, given.x)
    assert torch.equal(none, plain)


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


def test_adversarial_logit_pairing(views: Views, moved) -> None:
    given, x = moved
    clean, far = views.model(given.x), views.model(x)
    expected = (functional.cross_entropy(clean, given.y) + functional.cross_entropy(far, given.y)) / 2
    expected = expected + 0.5 * (clean - far).square().sum() / 12
    assert torch.allclose(objective(ALP())(views, given, x), expected)


def test_mixup_is_cross_entropy_against_mixed_labels(views: Views) -> None:
    given = batch()
    seen = []
    live, views.live = views.live, lambda x: seen.append(x) or live(x)
    loss = objective(Mixup(alpha=1.0))(views, given, given.x)
    shares = objectives.shares(given.key, 1.0).float()
    flat, one = given.x.flatten(1), functional.one_hot(given.y, 10).float()
    others = ((seen[0].flatten(1) - shares[:, None] * flat) / (1 - shares[:, None])).double()
    partner = torch.cdist(others, flat.double()).argmin(1)
    assert torch.allclose(others, flat[partner].double(), atol=1e-4)
    assert sorted(partner.tolist()) == list(range(12))
    soft = shares[:, None] * one + (1 - shares[:, None]) * one[partner]
    assert torch.allclose(loss, functional.cross_entropy(live(seen[0]), soft))


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0])
def test_shares_are_of_the_beta_distribution(alpha: float) -> None:
    """Moments of Beta(a, a): 1/2, 1 / (4 (2a + 1)), and symmetry; each within five standard errors."""
    drawn = objectives.shares(random.keys(0, torch.arange(20_000)), alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert abs(drawn.mean() - 0.5) < 5 * (variance / 20_000) ** 0.5
    assert abs((drawn - 0.5).square().mean() - variance) < 5 * (1 / 16 / 20_000) ** 0.5
    assert abs((drawn < 0.1).double().mean() - (drawn > 0.9).double().mean()) < 5 * (1 / 20_000) ** 0.5

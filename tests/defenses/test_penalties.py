"""Penalties against closed forms and exact Jacobians."""

import pytest
import torch
from defenses.cases import batch, convolutional, mlp
from defenses.test_smoothness import fisher
from torch import nn

from sparring.attacks import random
from sparring.contract.defenses import Training, WeightPenalty
from sparring.defenses.data import in_memory
from sparring.defenses.penalties import gradient_penalty, roots, shrunk, trace, with_squares
from sparring.defenses.training import train
from sparring.defenses.views import Views


def small() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    return model, torch.randn(6, 8, dtype=torch.float64, requires_grad=True)


def test_the_exact_trace_is_that_of_the_fisher_information() -> None:
    model, x = small()
    found = trace(roots(model(x)), x, torch.zeros(6), 0)
    expected = torch.stack([each.trace() for each in fisher(model, x.detach())])
    assert torch.allclose(found, expected)


def test_random_signs_estimate_both_forms_without_bias() -> None:
    model, x = small()
    key = random.keys(0, torch.arange(6))
    for outputs in (lambda: roots(model(x)), lambda: model(x)):
        exact = trace(outputs(), x, key, 0)
        assert torch.allclose(trace(outputs(), x, key, 1500), exact, rtol=0.1)


def test_no_slope_is_lost_where_the_model_is_certain() -> None:
    logits = torch.tensor([[2000.0, 0.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(roots(logits).sum(), logits)
    assert torch.isfinite(slope).all()


def test_of_a_linear_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given, views, w = batch(), Views(model), model[1].weight.detach()
    off = model(given.x).softmax(1).detach() - nn.functional.one_hot(given.y, 10)
    slope = off @ w
    expected = {
        "loss": slope.square().sum(1),
        "loss_l2": slope.norm(dim=1),
        "loss_l1": slope.abs().sum(1),
        "jacobian": w.square().sum().expand(12),
    }
    plain = nn.functional.cross_entropy(model(given.x), given.y)
    for of, penalty in expected.items():
        loss = gradient_penalty(of, 2.0, 0)(views, given, given.x)
        assert torch.allclose(loss - plain, 2 * penalty.mean(), rtol=1e-4), of


@pytest.mark.parametrize("of", ["loss", "loss_l2", "loss_l1", "jacobian", "fisher"])
def test_double_backprop_is_the_slope_of_the_penalty(of) -> None:
    """Against central differences in one weight."""
    model = convolutional().double()
    given = batch()
    given = given._replace(x=given.x.double())
    views, weight, h = Views(model), model[0].weight, 1e-5
    objective = gradient_penalty(of, 1.0, 1)
    (slope,) = torch.autograd.grad(objective(views, given, given.x), weight)
    ends = []
    for step in (h, -2 * h):
        with torch.no_grad():
            weight[0, 0, 1, 1] += step
        ends.append(float(objective(views, given, given.x).detach()))
    assert abs((ends[0] - ends[1]) / (2 * h) - float(slope[0, 0, 1, 1])) < 1e-5


def test_a_flat_model_has_a_finite_slope() -> None:
    model = mlp()
    nn.init.zeros_(model[5].weight)
    views, given = Views(model), batch()
    for of in ("loss_l2", "fisher", "loss_l1"):
        loss = gradient_penalty(of, 1.0, 1)(views, given, given.x)
        assert all(
            torch.isfinite(slope).all()
            for slope in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            if slope is not None
        )


def test_l2_is_part_of_the_loss_and_leaves_biases_alone() -> None:
    views, given = Views(mlp()), batch()
    found = with_squares(0.5)(views, given, given.x) - with_squares(0.0)(views, given, given.x)
    assert torch.allclose(found, 0.5 * sum(each.square().sum() for each in views.model.parameters() if each.dim() > 1), rtol=1e-4)


def test_l1_shrinks_every_weight_by_rate_times_weight_and_stops_at_zero() -> None:
    views = Views(mlp())
    weight, bias = views.model[1].weight.detach().clone(), views.model[1].bias.detach().clone()
    with torch.no_grad():
        shrunk(0.5)(views, 0.1)
    assert torch.allclose(views.model[1].weight, weight.sign() * (weight.abs() - 0.05).clamp(min=0))
    assert torch.equal(views.model[1].bias, bias)


def test_l1_makes_weights_exactly_zero() -> None:
    torch.manual_seed(0)
    x = torch.rand(100, 6)
    model = nn.Linear(6, 2)  # the first entry alone says which class
    data = in_memory(x, (x[:, 0] > 0.5).long())
    list(train(model, WeightPenalty(l1=0.1, l2=0), data, Training(epochs=60, optimizer="sgd", rate=0.1, momentum=0.0)))
    assert (model.weight[:, 1:] == 0).all()
    assert (model.weight[:, 0] != 0).all()

"""Ways to step, against loops written down anew."""

import pytest
import torch
from defenses.cases import batch, convolutional, mlp, normed, tensors
from torch import Tensor, nn

from sparring.attacks import random
from sparring.defenses.awp import at_worst
from sparring.defenses.objectives import on_perturbed
from sparring.defenses.perturb import START, around, slope
from sparring.defenses.recipe import Turn
from sparring.defenses.updates import accumulate, replay, yopo
from sparring.defenses.views import Views

functional = nn.functional
RATE = 0.1


def turn(model: nn.Module, given) -> Turn:
    """Plain descent by RATE."""
    views = Views(model)

    def descend(compute) -> None:
        model.zero_grad()
        compute()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= RATE * weight.grad

    return Turn(views, given, on_perturbed, descend)


def close(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.allclose(one, two, atol=1e-6) for one, two in zip(first.parameters(), second.parameters(), strict=True))


def test_free_replays_each_batch_and_carries_the_perturbation_on() -> None:
    given, eps = batch(), 0.1
    model, other = mlp(), mlp()
    mine, carry = turn(model, given), {}
    for _ in range(2):
        carry = replay("linf", eps, 3)(mine, given.x, carry)

    delta = torch.zeros_like(given.x)
    for _ in range(2 * 3):
        x = (given.x + delta).clamp(0, 1).requires_grad_()
        torch.autograd.backward(functional.cross_entropy(other(x), given.y))
        with torch.no_grad():
            for weight in other.parameters():
                weight -= RATE * weight.grad
                weight.grad = None
        delta = ((x + eps * x.grad.sign()).clamp(0, 1) - given.x).clamp(-eps, eps).detach()
    assert close(model, other)
    assert torch.allclose(carry["delta"], delta, atol=1e-6)
    assert carry["delta"].abs().max() > 0.05


def test_free_uses_part_of_the_perturbation_on_a_short_batch() -> None:
    whole, part = batch(12), batch(5)
    mine = turn(mlp(), whole)
    carry = replay("linf", 0.1, 2)(mine, whole.x, {})
    short = replay("linf", 0.1, 1)(mine._replace(batch=part), part.x, carry)
    assert short["delta"].shape == carry["delta"].shape
    assert torch.equal(short["delta"][5:], carry["delta"][5:])
    assert not torch.equal(short["delta"][:5], carry["delta"][:5])


def test_freelb_averages_the_gradients_of_its_path() -> None:
    given, eps, alpha, steps = batch(), 1.0, 0.4, 3
    model, other = mlp(), mlp()
    points: list[Tensor] = []

    def watched(views: Views, own, x: Tensor) -> Tensor:
        points.append(x.detach())
        return on_perturbed(views, own, x)

    accumulate("l2", eps, alpha, steps)(turn(model, given)._replace(objective=watched), given.x, {})
    assert len(points) == steps
    loss = torch.stack([functional.cross_entropy(other(x), given.y) for x in points]).mean()
    for weight, grad in zip(other.parameters(), torch.autograd.grad(loss, list(other.parameters())), strict=True):
        with torch.no_grad():
            weight -= RATE * grad
    assert close(model, other)
    first, second = points[:2]
    assert ((first - given.x).flatten(1).norm(dim=1) <= eps).all()
    grad = slope(mlp(), given.y, first).flatten(1)
    step = alpha * grad / grad.norm(dim=1, keepdim=True)
    expected = around("l2", eps, given).project((first.flatten(1) + step).reshape(first.shape))
    assert torch.allclose(second, expected, atol=1e-6)


@pytest.mark.parametrize("make", [mlp, convolutional])
def test_yopo_with_one_step_for_each_pass_is_pgd_whose_gradients_are_averaged(make) -> None:
    """At the point of the full pass the chain rule through the first layer is exact."""
    given, eps, alpha, rounds = batch(), 0.1, 0.03, 3
    model, other = make(), make()
    yopo("linf", eps, alpha, rounds, 1)(turn(model, given), given.x, {})

    area, losses = around("linf", eps, given), []
    x = area.sample(random.fork(given.key, START))
    for _ in range(rounds):
        losses.append(functional.cross_entropy(other(x), given.y))
        x = area.project(x + alpha * slope(other, given.y, x).sign())
    for weight, grad in zip(other.parameters(), torch.autograd.grad(torch.stack(losses).mean(), list(other.parameters())), strict=True):
        with torch.no_grad():
            weight -= RATE * grad
    assert close(model, other)


def test_weights_are_moved_against_the_model_and_put_back() -> None:
    model, given, gamma = normed(), batch(), 0.02
    views, seen = Views(model), []
    before = tensors(model)

    def compute() -> Tensor:
        seen.append([weight.detach().clone() for weight in views.weights])
        loss = functional.cross_entropy(views.live(given.x), given.y)
        torch.autograd.backward(loss)
        if len(seen) == 1:
            grads.extend(weight.grad.clone() for weight in views.weights)
        return loss.detach()

    grads: list[Tensor] = []
    at_worst(views, gamma, compute, model.zero_grad)
    for weight, moved, grad in zip(*seen, grads, strict=True):
        assert torch.allclose(moved - weight, gamma * weight.norm() * grad / grad.norm(), atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    assert model[1].num_batches_tracked == 1
    once = normed()
    once.train()(given.x)
    assert torch.allclose(model[1].running_mean, once[1].running_mean, atol=0.005)


def test_the_loss_is_higher_where_the_weights_are_worst() -> None:
    model, given = mlp(), batch()
    views = Views(model)

    def compute() -> Tensor:
        loss = functional.cross_entropy(views.live(given.x), given.y)
        torch.autograd.backward(loss)
        return loss.detach()

    plain = compute()
    model.zero_grad()
    assert at_worst(views, 0.05, compute, model.zero_grad) > plain
    model.zero_grad()
    assert torch.equal(at_worst(views, 0.0, compute, model.zero_grad), plain)

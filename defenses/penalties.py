"""Penalties on how steep a model is in its input, by double backprop; and on its weights."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sparring.attacks import random
from sparring.defenses.data import Batch
from sparring.defenses.objectives import on_perturbed
from sparring.defenses.recipe import Objective
from sparring.defenses.views import Views

_SIGNS = 51  # a stream of randomness
_TINY = 1e-12

Of = Literal["loss", "loss_l2", "loss_l1", "jacobian", "fisher"]


def _slope(values: Tensor, x: Tensor, *, again: bool = True) -> Tensor:
    """The gradient (B, d) of the sum of `values`, itself with a graph."""
    (grad,) = torch.autograd.grad(values.sum(), x, create_graph=again)
    return grad.flatten(1)


def _length(grad: Tensor) -> Tensor:
    """(B,), with a slope of 0 where it is 0."""
    return grad.square().sum(1).clamp_min(_TINY).sqrt()


def _of_loss(norm: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Batch], Tensor]:
    def penalty(logits: Tensor, x: Tensor, batch: Batch) -> Tensor:
        return norm(_slope(functional.cross_entropy(logits, batch.y, reduction="sum"), x))

    return penalty


def roots(logits: Tensor) -> Tensor:
    """2 sqrt(p) (B, K): the squared gradients of these sum up to the trace of the Fisher information."""
    return 2 * (0.5 * logits.log_softmax(1).clamp_min(-60.0)).exp()


def trace(outputs: Tensor, x: Tensor, key: Tensor, samples: int) -> Tensor:
    """sum_k ||grad_x outputs_k||^2 (B,), with a graph.

    By one backward pass per draw of random signs e: E ||grad_x sum_k e_k outputs_k||^2 is the sum (Hutchinson 1990). With
    `samples` 0 exactly, by a pass per class.
    """
    if samples == 0:
        return torch.stack([_slope(outputs[:, k], x).square().sum(1) for k in range(outputs.shape[1])]).sum(0)
    total = []
    for sample in range(samples):
        draws = random.uniforms(random.fork(random.fork(key, _SIGNS), sample), (outputs.shape[1],))
        signs = torch.where(draws < 0.5, -1.0, 1.0)
        total.append(_slope((signs * outputs).sum(), x).square().sum(1))
    return torch.stack(total).mean(0)


def gradient_penalty(of: Of, weight: float, samples: int) -> Objective:
    """CE(x) + weight times the mean penalty of a row.

    `loss`: ||g||^2 with g the row's gradient of the loss (Drucker, Le Cun 1992; Ross, Doshi-Velez 2017, 1711.09404);
    `loss_l2`, `loss_l1`: ||g||_2, ||g||_1, to first order the loss at the end of an FGM or FGSM step of size `weight`;
    `jacobian`: sum_k ||grad z_k||^2; `fisher`: sum_k ||grad p_k||^2 / p_k, the trace of the Fisher information of the prediction.

    Where batch norm couples the rows of a batch, a row's gradient includes what it does to the others.
    """
    penalties: dict[Of, Callable[[Tensor, Tensor, Batch], Tensor]] = {
        "loss": _of_loss(lambda grad: grad.square().sum(1)),
        "loss_l2": _of_loss(_length),
        "loss_l1": _of_loss(lambda grad: grad.abs().sum(1)),
        "jacobian": lambda logits, x, batch: trace(logits, x, batch.key, samples),
        "fisher": lambda logits, x, batch: trace(roots(logits), x, batch.key, samples),
    }

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        logits = views.live(x)
        return functional.cross_entropy(logits, batch.y) + weight * penalties[of](logits, x, batch).mean()

    return objective


def with_squares(weight: float) -> Objective:
    """CE(x) + weight times the sum of squares of the weights of layers."""

    def objective(views: Views, batch: Batch, x: Tensor) -> Tensor:
        squares = torch.stack([each.square().sum() for each in views.weights]).sum()
        return on_perturbed(views, batch, x) + weight * squares

    return objective


def shrunk(weight: float) -> Callable[[Views, float], None]:
    """The proximal step of the L1 norm: w <- sign(w) max(|w| - rate * weight, 0)."""

    def after(views: Views, rate: float) -> None:
        for each in views.weights:
            each.copy_(functional.softshrink(each, rate * weight))

    return after

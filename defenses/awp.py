"""Adversarial weight perturbation: weights are moved against the model before it learns (Wu, Xia, Wang 2020, 2004.05884)."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparring.defenses.views import Views

_TINY = 1e-20


def at_worst(views: Views, gamma: float, compute: Callable[[], Tensor], clear: Callable[[], None]) -> Tensor:
    """The loss (), with gradients taken where each layer's weights w have moved by gamma ||w|| g / ||g||; they are put back after.

    `compute` fills gradients, `clear` empties them. Running statistics learn from the second pass alone.
    """
    kept = {name: buffer.clone() for name, buffer in views.model.named_buffers()}
    compute()
    with torch.no_grad():
        for name, buffer in views.model.named_buffers():
            buffer.data.copy_(kept[name])  # past autograd, as in a pass
        moved = [(weight, weight.clone()) for weight in views.weights if weight.grad is not None]
        for weight, own in moved:
            assert weight.grad is not None
            weight.add_(weight.grad * (gamma * own.norm() / (weight.grad.norm() + _TINY)))
    clear()
    try:
        return compute()
    finally:
        with torch.no_grad():
            for weight, own in moved:
                weight.copy_(own)

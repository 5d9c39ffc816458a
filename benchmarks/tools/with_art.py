"""Adversarial Robustness Toolbox: https://github.com/Trusted-AI/adversarial-robustness-toolbox."""

from importlib.metadata import version

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion import BoundaryAttack, HopSkipJump, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from tools.task import Attack, Task, hops, serve
from torch import Tensor, nn

_STEP = 32
"""Queries that a step of the boundary attack makes, as measured."""


class _Single(nn.Module):
    """Some attacks hand over float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x.float())
        return scores


def _prepare(task: Task, model: nn.Module) -> Attack:
    x, _ = task.inputs()
    shape = tuple(x.shape[1:])
    wrapped = PyTorchClassifier(_Single(model), nn.CrossEntropyLoss(), shape, nb_classes=10, clip_values=(0, 1), device_type="cpu")
    chosen = _attack(task, wrapped)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(chosen.generate(x.numpy(), y.numpy())).float()

    return attack


def _attack(task: Task, wrapped: PyTorchClassifier) -> EvasionAttack:
    if task.workload == "hopskipjump":
        return HopSkipJump(wrapped, batch_size=task.batch, norm=2, max_iter=hops(task.steps), verbose=False)
    if task.workload == "boundary":
        return BoundaryAttack(wrapped, batch_size=task.batch, targeted=False, max_iter=task.steps // _STEP, verbose=False)
    return ProjectedGradientDescent(
        wrapped,
        norm=np.inf,
        eps=task.eps,
        eps_step=task.alpha,
        max_iter=task.steps,
        num_random_init=1,
        batch_size=task.batch,
        verbose=False,
    )


if __name__ == "__main__":
    serve(_prepare, f"ART {version('adversarial-robustness-toolbox')}")

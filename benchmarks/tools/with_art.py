"""Adversarial Robustness Toolbox: https://github.com/Trusted-AI/adversarial-robustness-toolbox."""

from importlib.metadata import version

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from tools.task import Attack, Task, serve
from torch import Tensor, nn


def _prepare(task: Task, model: nn.Module) -> Attack:
    x, _ = task.inputs()
    wrapped = PyTorchClassifier(model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1), device_type="cpu")
    pgd = ProjectedGradientDescent(
        wrapped,
        norm=np.inf,
        eps=task.eps,
        eps_step=task.alpha,
        max_iter=task.steps,
        num_random_init=1,
        batch_size=task.batch,
        verbose=False,
    )

    def attack(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(pgd.generate(x.numpy(), y.numpy()))

    return attack


if __name__ == "__main__":
    serve(_prepare, f"ART {version('adversarial-robustness-toolbox')}")

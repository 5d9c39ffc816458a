"""AutoAttack `standard` at its official settings, assembled from torchattacks' parts, whose own defaults are 10 steps.

Croce, Hein 2020, arXiv 2003.01690: APGD on cross-entropy (100 iterations), APGD on the targeted DLR loss (9 targets, 100), targeted FAB
(9 targets, 100), Square (5000 queries, p 0.8); each sees the rows the ones before it left, one restart.
"""

from importlib.metadata import version

import torch
import torchattacks
from tools.task import Attack, Task, batched, serve
from torch import Tensor, nn


def _prepare(task: Task, model: nn.Module) -> Attack:
    parts = (
        torchattacks.APGD(model, eps=task.eps, steps=100, loss="ce", seed=task.seed),
        torchattacks.APGDT(model, eps=task.eps, steps=100, n_classes=10, seed=task.seed),
        torchattacks.FAB(model, eps=task.eps, steps=100, multi_targeted=True, n_classes=10, seed=task.seed),
        torchattacks.Square(model, eps=task.eps, n_queries=5000, p_init=0.8, seed=task.seed),
    )

    def predictions(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(part).argmax(1) for part in torch.split(x, task.batch)])

    def attack(x: Tensor, y: Tensor) -> Tensor:
        adversarial = x.clone()
        left = torch.nonzero(predictions(x) == y).flatten()
        for part in parts:
            if len(left):
                adversarial[left] = batched(part, task.batch)(x[left], y[left])
                left = left[predictions(adversarial[left]) == y[left]]
        return adversarial

    return attack


if __name__ == "__main__":
    serve(_prepare, f"torchattacks {version('torchattacks')}")

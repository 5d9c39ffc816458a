"""torchattacks: https://github.com/Harry24k/adversarial-attacks-pytorch."""

from importlib.metadata import version

import torchattacks
from tools.task import Attack, Task, batched, serve
from torch import nn


def _prepare(task: Task, model: nn.Module) -> Attack:
    attacks: dict[str, Attack] = {
        "pgd20-verdict": torchattacks.PGD(model, eps=task.eps, alpha=task.alpha, steps=task.steps),
        "pgd20-export": torchattacks.PGD(model, eps=task.eps, alpha=task.alpha, steps=task.steps),
        "apgd100": torchattacks.APGD(model, eps=task.eps, steps=task.steps, seed=task.seed),
    }
    if task.workload.startswith("square"):
        return batched(torchattacks.Square(model, eps=task.eps, n_queries=task.steps, p_init=0.8, seed=task.seed), task.batch)
    return batched(attacks[task.workload], task.batch)


if __name__ == "__main__":
    serve(_prepare, f"torchattacks {version('torchattacks')}")

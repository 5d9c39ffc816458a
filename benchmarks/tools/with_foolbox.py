"""Foolbox: https://github.com/bethgelab/foolbox."""

from importlib.metadata import version

import foolbox
from tools.task import Attack, Task, batched, serve
from torch import Tensor, nn


def _prepare(task: Task, model: nn.Module) -> Attack:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    pgd = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=task.alpha, steps=task.steps, random_start=True)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        _, clipped, _ = pgd(wrapped, x, y, epsilons=task.eps)
        adversarial: Tensor = clipped
        return adversarial

    return batched(attack, task.batch)


if __name__ == "__main__":
    serve(_prepare, f"foolbox {version('foolbox')}")

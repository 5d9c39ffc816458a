"""Foolbox: https://github.com/bethgelab/foolbox."""

from importlib.metadata import version

import foolbox
import torch
from foolbox.attacks import BoundaryAttack, HopSkipJumpAttack, LinearSearchBlendedUniformNoiseAttack, LinfProjectedGradientDescentAttack
from tools.task import Attack, Task, batched, hops, serve
from torch import Tensor, nn

_INIT, _CHECKS = 50, 1.1
"""Queries that look for a start, and how many a step of the boundary attack makes."""


def _prepare(task: Task, model: nn.Module) -> Attack:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    if task.norm == "l2":
        return batched(_walk(task, wrapped), task.batch)
    pgd = LinfProjectedGradientDescentAttack(abs_stepsize=task.alpha, steps=task.steps, random_start=True)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        _, clipped, _ = pgd(wrapped, x, y, epsilons=task.eps)
        adversarial: Tensor = clipped
        return adversarial

    return batched(attack, task.batch)


def _walk(task: Task, wrapped: foolbox.PyTorchModel) -> Attack:
    """It stops for all rows where one has no start: they are left out."""
    start = LinearSearchBlendedUniformNoiseAttack(steps=_INIT)
    walk = HopSkipJumpAttack(steps=hops(task.steps))
    if task.workload == "boundary":
        walk = BoundaryAttack(steps=int((task.steps - _INIT) / _CHECKS), tensorboard=False)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        adversarial: Tensor = start.run(wrapped, x, foolbox.Misclassification(y))
        with torch.no_grad():
            begun = torch.nonzero(wrapped(adversarial).argmax(1) != y).flatten()
        adversarial[begun] = walk.run(wrapped, x[begun], foolbox.Misclassification(y[begun]), starting_points=adversarial[begun])
        return adversarial

    return attack


if __name__ == "__main__":
    serve(_prepare, f"foolbox {version('foolbox')}")

"""The floor: what the passes alone cost in plain fp32, one forward and one backward to the input (or one forward) a step."""

import sys
import time
from pathlib import Path

import torch
from tools.task import Task, cpu_seconds
from torch import Tensor

_MOST = 20
"""Steps that are run; more are reckoned from them."""


def main() -> None:
    task = Task.read(Path(sys.argv[1]))
    model, (x, y) = task.model().requires_grad_(False), task.inputs()
    batches = list(zip(torch.split(x, task.batch), torch.split(y, task.batch), strict=True))
    _step(model, *batches[0], task.gradient)
    steps = min(task.steps, _MOST)
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(steps):
        for part in batches:
            _step(model, *part, task.gradient)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    scale = task.steps / steps
    task.answer(None, wall_s=scale * wall, cpu_s=scale * cpu, version=f"torch {torch.__version__}")


def _step(model: torch.nn.Module, x: Tensor, y: Tensor, gradient: bool) -> None:
    if not gradient:
        with torch.no_grad():
            model(x)
        return
    z = x.detach().requires_grad_()
    torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)


if __name__ == "__main__":
    main()

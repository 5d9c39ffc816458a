"""What a tool is asked to do, as a file, and how its attack is timed. Each tool is a process: `python -m tools.NAME TASK.json`."""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sparring.contract.specs import Arch
from sparring.workers.zoo import build


@dataclass(frozen=True)
class Task:
    """One attack on the first rows of a data set, in the box [0, 1]."""

    workload: str
    job: dict[str, Any]
    """What it is for Sparring: a job without model, data, threat, rows and seed."""
    steps: int
    """Gradient steps, or queries of a random search."""
    arch: Arch
    weights: str
    data: str
    """npz: x float32 in [0, 1] (rows, channels, height, width), and y."""
    rows: int
    eps: float
    seed: int
    processes: int
    """Cores of this machine."""
    out: str
    """A folder: `timing.json`, and `x.npy`, the adversarial rows."""
    gradient: bool = True
    """The floor's passes go backward too."""
    norm: Literal["linf", "l2"] = "linf"
    batch: int = 128

    @property
    def alpha(self) -> float:
        """PGD's step size."""
        return 2.5 * self.eps / self.steps

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> "Task":
        """From JSON."""
        return Task(**json.loads(path.read_text()))

    def model(self) -> nn.Module:
        """The plain module, as users of a library hold it."""
        return build(self.arch, load_file(self.weights)).module.eval()

    def inputs(self) -> tuple[Tensor, Tensor]:
        """(x, labels)."""
        with np.load(self.data) as file:
            return torch.from_numpy(file["x"][: self.rows]), torch.from_numpy(file["y"][: self.rows])

    def answer(self, x: np.ndarray[Any, Any] | None, **timing: float | str) -> None:
        """Leave the adversarial rows, and `wall_s`, `cpu_s`, `version`, or `skipped`: why there are none."""
        if x is not None:
            np.save(Path(self.out) / "x.npy", x.astype(np.float32, copy=False))
        (Path(self.out) / "timing.json").write_text(json.dumps(timing))


Attack = Callable[[Tensor, Tensor], Tensor]
"""(x, labels) -> x', for any number of rows."""


def hops(queries: int) -> int:
    """Steps of HopSkipJump, of which the t-th makes 100 sqrt(t) probes, that come to so many."""
    steps, made = 0, 0.0
    while (made := made + 100 * (steps + 1) ** 0.5) <= queries:
        steps += 1
    return steps


def cpu_seconds() -> float:
    """CPU seconds of this process, its threads and the children it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def batched(attack: Attack, batch: int) -> Attack:
    """The same, `batch` rows at a time."""

    def attacked(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([attack(*part) for part in zip(torch.split(x, batch), torch.split(y, batch), strict=True)])

    return attacked


def serve(prepare: Callable[[Task, nn.Module], Attack], version: str) -> None:
    """Do the task named on the command line. Imports, loading and one warming pass are not timed."""
    task = Task.read(Path(sys.argv[1]))
    torch.manual_seed(task.seed)
    np.random.seed(task.seed)
    model, (x, y) = task.model(), task.inputs()
    warm = x[: task.batch].clone().requires_grad_()
    torch.autograd.grad(model(warm).sum(), warm)
    attack = prepare(task, model)
    wall, cpu = time.perf_counter(), cpu_seconds()
    adversarial = attack(x, y)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_seconds() - cpu}
    task.answer(adversarial.detach().numpy(), version=version, threads=torch.get_num_threads(), **spent)

"""Sparring as its users get it: a worker's runner, started ahead, serves one order and writes its report.

Timed is the runner's phase `attack`: all CPU seconds of the runner and its row processes, loading the model in the second row
process, a clean pass, the judge's looks and saving the shards included. The checks of the number come after it and are not timed.
"""

import os
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tools.task import Task

import sparring
from sparring.contract.jobs import JOB, Job
from sparring.contract.report import Report
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.runner import MESSAGE, Failed, Order, Told
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.workers.spare import Runner, Stable
from sparring.workers.wire import Lines, send


def main() -> None:
    task = Task.read(Path(sys.argv[1]))
    try:
        job = _job(task)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        task.answer(None, skipped=f"the contract refuses {task.job}: {faults}")
        return
    order = _order(task, job)
    runner = Stable("cpu", task.processes).ready()
    try:
        spent = _serve(runner, order)
    finally:
        runner.kill()
    out = Path(order.out)
    report = Report.model_validate_json((out / "report.json").read_bytes())
    version = f"sparring {sparring.__version__}"
    task.answer(_adversarial(task, out), attack_s=report.cost.attack_seconds, version=version, threads=task.processes, **spent)


def _job(task: Task) -> Job:
    threat = {"norm": task.norm, "eps": task.eps}
    against = {"threat": threat} if task.job["kind"] == "craft" else {"threats": [threat]}
    return JOB.validate_python(task.job | against | {"model": "0" * 64, "data": "1" * 64, "rows": task.rows, "seed": task.seed})


def _order(task: Task, job: Job) -> Order:
    now, folder = datetime.now(UTC), Path(task.out)
    for name in ("cache", "out"):
        (folder / name).mkdir()
    model: dict[str, Any] = {"id": "mdl_" + "0" * 20, "format": "safetensors", "spec": ModelSpec(arch=task.arch)}
    data: dict[str, Any] = {"id": "dat_" + "0" * 20, "format": "npz", "spec": DataSpec(bounds=(0.0, 1.0))}
    return Order(
        job=job,
        model=ModelInfo(name="model", sha256=_digest(task.weights), size=0, created=now, **model),
        model_path=task.weights,
        data=DatasetInfo(name="data", sha256=_digest(task.data), size=0, created=now, **data),
        data_path=task.data,
        cache=str(folder / "cache"),
        out=str(folder / "out"),
    )


def _digest(path: str) -> str:
    return sha256(Path(path).read_bytes()).hexdigest()


def _serve(runner: Runner, order: Order) -> dict[str, float]:
    """Send the order and wait for the end; seconds from the message that attacks begin to the first of the phase after."""
    send(runner.wire, order)
    lines, marks = Lines(runner.wire), dict[str, tuple[float, float]]()
    while not lines.ended:
        for line in lines.read(None):
            said = MESSAGE.validate_json(line)
            if isinstance(said, Failed):
                raise SystemExit(f"{said.reason.code}: {said.reason.message} {said.reason.hint}")
            if isinstance(said, Told):
                marks.setdefault(said.progress.phase, (time.perf_counter(), _cpu_seconds(runner.pid)))
    phases = list(marks)
    if "attack" not in phases[:-1]:
        raise SystemExit(f"The runner told of the phases {', '.join(phases)}; expected are attack and another after it.")
    (wall, cpu), (wall_end, cpu_end) = marks["attack"], marks[phases[phases.index("attack") + 1]]
    return {"wall_s": wall_end - wall, "cpu_s": cpu_end - cpu}


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, its children, and those it had and has waited for."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        gone = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15])) / os.sysconf("SC_CLK_TCK")
        # The clock of another process, as clock_getcpuclockid(3) makes it; /proc/PID/stat counts in ticks.
        return gone + sum(time.clock_gettime((~each << 3) | 2) for each in (pid, *children))
    except OSError:  # the runner has ended; phases that count come before
        return float("nan")


def _adversarial(task: Task, out: Path) -> NDArray[np.float32]:
    """The rows as the runner left them: moved where the report calls them broken; all of them for a Craft job."""
    if task.job["kind"] == "craft":
        with np.load(out / "crafted.npz") as file:
            crafted: NDArray[np.float32] = file["x"]
            return crafted
    with np.load(task.data) as clean, np.load(out / "examples.npz") as file:
        x: NDArray[np.float32] = clean["x"][: task.rows].copy()
        x[file["row"]] = file["x"]
    return x


if __name__ == "__main__":
    main()

"""Runs a tool as a process of its own, and reads back what it left."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from models import SUBJECTS, Ready
from tools.task import Task
from torch import Tensor
from workloads import FLOORS, MODULES, OURS, WORKLOADS

from sparring.workers.spare import environment

HERE = Path(__file__).parent
_FOREIGN = ("OMP_", "MKL_", "OPENBLAS_", "MALLOC_", "KMP_", "LD_PRELOAD")


class Answer(NamedTuple):
    """What a tool left."""

    timing: dict[str, float | str]
    """`wall_s`, `cpu_s`, `version` …, or `skipped`: why it did not run."""
    x: Tensor | None


def task(subject: str, workload: str, place: Ready, rows: int, seed: int) -> Task:
    """What every tool is asked to do."""
    work = WORKLOADS[workload]
    return Task(
        workload=workload,
        job=work.job,
        steps=work.steps,
        gradient=work.gradient,
        norm="linf" if work.far is None else "l2",
        arch=SUBJECTS[subject].arch,
        weights=str(place.weights),
        data=str(place.data),
        rows=rows,
        eps=SUBJECTS[subject].eps if work.far is None else work.far,
        seed=seed,
        processes=len(os.sched_getaffinity(0)),
        out="",
    )


def run(tool: str, asked: Task, peers: Path, same_allocator: bool = False) -> Answer:
    """Run one tool. `peers` is the interpreter of their environment; with `same_allocator` they too get our allocator settings."""
    with tempfile.TemporaryDirectory(prefix="sparring-bench-") as name:
        job = asked.job
        if OURS.get(tool, "exact") != "exact":
            job = job | {"precision": OURS[tool]}
        folder = Path(name)
        replace(asked, out=name, job=job).write(folder / "task.json")
        module = "ours" if tool in OURS else "floor" if tool in FLOORS else MODULES[tool]
        python = str(peers) if tool in MODULES else sys.executable
        settings = tool == "floor" or (same_allocator and tool in MODULES)
        done = subprocess.run(
            [python, "-m", f"tools.{module}", str(folder / "task.json")],
            cwd=HERE,
            env=environment_of(allocator=settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            return Answer({"skipped": f"it failed: {last_words(done)}"}, None)
        timing = json.loads((folder / "timing.json").read_text())
        moved = folder / "x.npy"
        return Answer(timing, torch.from_numpy(np.load(moved)) if moved.exists() else None)


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process failed, as far as it said so."""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def environment_of(allocator: bool) -> dict[str, str]:
    """The caller's, without settings of threads and allocator; with `allocator` the runner's allocator settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return own | ({name: value for name, value in environment().items() if name.startswith("MALLOC_")} if allocator else {})

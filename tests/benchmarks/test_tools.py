"""A tool is a process that reads a task and leaves points and timings; ours is a real runner."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import launch
import numpy as np
import pytest
import torch
from judge import judge
from models import Ready
from safetensors.torch import save_file
from tools.task import Task
from torch import Tensor
from workloads import WORKLOADS, plan

from sparring.workers.zoo import Mlp

ROOT = Path(__file__).parents[2]
EPS, ROWS = 0.02, 100


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """A linear model, and rows so far inside the box that only the ball counts."""
    folder = tmp_path_factory.mktemp("subject")
    torch.manual_seed(0)
    model = Mlp({"0": (36, 2, False)})
    weight = torch.randn(2, 36)
    model.get_parameter("0.weight").data = weight - weight.mean(1, keepdim=True)
    x = 0.3 + 0.4 * torch.rand(ROWS, 1, 6, 6)
    save_file(model.state_dict(), folder / "weights.safetensors")
    np.savez(folder / "rows.npz", x=x.numpy(), y=model(x).argmax(1).numpy())
    return Ready(folder / "weights.safetensors", folder / "rows.npz")


def task(place: Ready, workload: str) -> Task:
    return replace(launch.task("digits", workload, place, ROWS, seed=0), eps=EPS)


def within_reach(task: Task) -> Tensor:
    """Rows whose margin some point of the ball overcomes: exact, because the model is linear."""
    model, (x, _) = task.model(), task.inputs()
    weight, logits = model.get_parameter("0.weight"), model(x)
    return (logits[:, 0] - logits[:, 1]).abs() < EPS * (weight[0] - weight[1]).abs().sum()


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["pgd20-verdict", "pgd20-export"])
def test_ours_breaks_what_can_be_broken(place: Ready, workload: str) -> None:
    asked = task(place, workload)
    answer = launch.run("ours-exact", asked, Path(sys.executable))
    assert answer.x is not None, answer.timing
    model, (x, y) = asked.model(), asked.inputs()
    verdict = judge(model, x, y, answer.x, EPS)
    assert verdict.outside == 0
    assert 0 < verdict.robust.sum() < ROWS
    assert verdict.robust.tolist() == (~within_reach(asked)).tolist()
    assert float(answer.timing["wall_s"]) > 0
    assert float(answer.timing["cpu_s"]) >= float(answer.timing["attack_s"]) > 0


def test_the_floor_is_timed(place: Ready) -> None:
    answer = launch.run("floor", task(place, "pgd20-verdict"), Path(sys.executable))
    assert answer.x is None
    assert float(answer.timing["cpu_s"]) > 0


def test_a_job_the_contract_refuses_is_skipped_with_the_reason(place: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "pgd20-verdict", WORKLOADS["pgd20-verdict"]._replace(job={"kind": "evaluate", "suite": "no such"}))
    answer = launch.run("ours-exact", task(place, "pgd20-verdict"), Path(sys.executable))
    assert answer.x is None
    assert "suite" in str(answer.timing["skipped"])


def test_a_tool_that_fails_is_skipped_with_the_reason(place: Ready, tmp_path: Path) -> None:
    asked = task(place._replace(weights=tmp_path / "absent"), "pgd20-verdict")
    answer = launch.run("floor", asked, Path(sys.executable))
    assert "absent" in str(answer.timing["skipped"])


def test_tools_get_no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    assert not {"OMP_NUM_THREADS", "MALLOC_MMAP_MAX_"} & launch.environment_of(allocator=False).keys()
    ours = launch.environment_of(allocator=True)
    assert ours["MALLOC_MMAP_MAX_"] == "0"
    assert "OMP_NUM_THREADS" not in ours
    assert ours["PATH"] == os.environ["PATH"]


def test_by_default_every_workload_runs_where_it_is_meant_to() -> None:
    assert ("resnet18", "pgd20-verdict") in plan(None, None)
    assert "digits" not in {subject for subject, _ in plan(None, None)}
    assert plan(["standard"], ["digits"]) == [("digits", "standard")]
    assert {name for _, name in plan(None, ["fashion"])} == set(WORKLOADS)


def test_every_package_of_the_peers_has_one_version() -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints/cpu.txt").read_text().splitlines()}
    asked = [line for line in (ROOT / "benchmarks/peers.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in asked if "==" not in line and line.lower() not in pinned] == []

"""Published instances with known answers (VNN-COMP 2021, mnist_fc): none proved safe is reported broken, and nearly all others are."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparring.attacks import catalogue, problem, random
from sparring.attacks.access import Target
from sparring.attacks.bounds import Bounded
from sparring.attacks.norms import NORMS, Ball
from sparring.attacks.problem import Goal, Problem
from sparring.attacks.search import search_copy
from sparring.contract.attacks import APGD, SUITES, AttackSpec
from sparring.contract.specs import ModelSpec
from sparring.workers.models import load_model
from sparring.workers.onnx_search import settle

NETS = ("mnist-net_256x2", "mnist-net_256x4", "mnist-net_256x6")


class Instances(NamedTuple):
    """All instances of one network."""

    verdict: np.ndarray
    target: Target
    problem: Problem


def inward(edge: Tensor, inside: Tensor) -> Tensor:
    """A limit of the box in float32, on the inner side."""
    rounded = edge.float()
    outside = (rounded.double() - inside).abs() > (edge - inside).abs()
    return torch.where(outside, torch.nextafter(rounded, inside.float()), rounded)


def read(folder: Path, net: str) -> Instances:
    rows = list(csv.DictReader((folder / "instances.csv").read_text().splitlines()))
    at = [index for index, row in enumerate(rows) if row["onnx"] == f"{net}.onnx"]
    with np.load(folder / "boxes.npz") as file:
        low, high = (torch.from_numpy(file[name][at])[..., None] for name in ("lb", "ub"))
    middle = (low + high) / 2
    low, high = inward(low, middle), inward(high, middle)
    centre = middle.float().clamp(low, high)
    eps = torch.maximum(high.double() - centre.double(), centre.double() - low.double()).flatten(1).amax(1)
    labels = torch.tensor([int(rows[index]["true_label"]) for index in at])
    task = problem.problem(Goal(labels), Ball(centre, eps, low, high, NORMS["linf"]), random.keys(0, torch.tensor(at)))
    return Instances(np.array([rows[index]["verdict"] for index in at]), aimed(folder / "onnx" / f"{net}.onnx", centre), task)


def aimed(path: Path, x: Tensor) -> Target:
    """onnxruntime on the file judges; its graph in torch is searched."""

    def as_it_is(module: nn.Module) -> nn.Module:
        return module

    loaded = load_model(path, "onnx", ModelSpec())
    with torch.no_grad():
        loaded = settle(loaded, x, loaded.module(x), as_it_is)
    assert loaded.search is not None
    return Target(loaded.module, search_copy(loaded.search)[0], 32)


@pytest.fixture(scope="module", params=[*NETS[:2], pytest.param(NETS[2], marks=pytest.mark.slow)])
def instances(request: pytest.FixtureRequest, realdata: Path) -> Instances:
    return read(realdata / "models" / "vnncomp_mnist_fc_2021", request.param)


def broken(given: Instances, attacks: tuple[AttackSpec, ...]) -> np.ndarray:
    """Which instances some attack breaks; each is tried on what those before it left."""
    done = torch.zeros(len(given.verdict), dtype=torch.bool)
    for spec in attacks:
        rows = torch.nonzero(~done).flatten()
        done[rows] = catalogue.run(spec, float(given.problem.ball.eps.max()), given.target, given.problem.select(rows)).success
    return done.numpy()


def test_bounds_prove_only_what_holds(instances):
    """Other verifiers proved the same instances; those with a counterexample are never proved."""
    ball, labels = instances.problem.ball, instances.problem.goal.labels
    rivals = torch.arange(10) != labels[:, None]
    proved = Bounded(instances.target.search, ball.centre).robust(ball, labels, rivals, instances.target.verdict(ball.centre)).numpy()
    assert set(instances.verdict[proved]) == {"unsat"}
    assert proved.sum() >= 7


def test_a_targeted_attack_breaks_no_safe_instance_and_nearly_every_other(instances):
    done = broken(instances, (APGD(), APGD(loss="difference", targets=9)))
    assert not done[instances.verdict == "unsat"].any()
    assert done[instances.verdict == "sat"].all()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_standard_suite_breaks_no_safe_instance_and_nearly_every_other(realdata):
    found = {"sat": 0, "unsat": 0}
    for net in NETS:
        given = read(realdata / "models" / "vnncomp_mnist_fc_2021", net)
        done = broken(given, SUITES["standard"][1])
        for verdict in found:
            found[verdict] += int(done[given.verdict == verdict].sum())
    assert found["unsat"] == 0
    assert found["sat"] >= 19

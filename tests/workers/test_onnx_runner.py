"""ONNX through a runner: the verdicts of the same network as .pt2, and what a model without a gradient is told."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from workers.onnx_nets import digits, exported, graph, node, ordered, save, tensor
from workers.orders import order, report, serve

from sparring.contract.runner import Done, Failed, Order
from sparring.contract.specs import DataSpec
from sparring.workers.bench import feasible
from sparring.workers.errors import Refused
from sparring.workers.onnx_judge import VERSION
from sparring.workers.preflight import preflight
from workers import orders

PGD = {"kind": "pgd", "steps": 6}
NOISE = {"kind": "noise", "draws": 3}
LINF = {"threats": [{"norm": "linf", "eps": 0.05}, {"norm": "linf", "eps": 0.1}]}


def served(given: Order) -> Done:
    done = serve(given)
    assert isinstance(done, Done), done
    return done


def rows(given: Order) -> list[dict[str, str]]:
    with (Path(given.out) / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as model.pt2, as free.onnx, and as fixed.onnx, which takes one row; and the digits."""
    folder = tmp_path_factory.mktemp("uploads")
    model = orders.trained(orders.network(), epochs=3)
    orders.export(model, folder / "model.pt2")
    exported(model, folder / "free.onnx")
    exported(model, folder / "fixed.onnx", batch=1)
    digits(folder / "data.npz", 200)
    return folder


@pytest.fixture(scope="module")
def as_pt2(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    given = order(tmp_path_factory.mktemp("pt2"), uploads / "model.pt2", uploads / "data.npz", LINF | {"attacks": [NOISE, PGD]})
    served(given)
    return given


@pytest.mark.parametrize("name", ["free.onnx", pytest.param("fixed.onnx", marks=pytest.mark.slow)])
def test_the_same_network_gets_the_same_verdicts_as_pt2(name: str, uploads: Path, as_pt2: Order, tmp_path: Path) -> None:
    """Only a row that lies on the boundary to the last bits may come out differently: at most one of 400."""
    given = order(tmp_path, uploads / name, uploads / "data.npz", LINF | {"attacks": [NOISE, PGD]})
    served(given)
    told, known = report(given), report(as_pt2)
    assert (told.model.format, told.model.classes, told.model.input_shape) == ("onnx", 10, (1, 8, 8))
    assert told.warnings == known.warnings == ()
    assert told.provenance.judge.startswith(f"onnxruntime {VERSION} on the uploaded file")
    assert told.provenance.search[0] == "converted to torch"
    assert told.clean == known.clean
    verdicts = [(row["row"], row["eps"], row["broken"]) for row in rows(given)]
    expected = [(row["row"], row["eps"], row["broken"]) for row in rows(as_pt2)]
    assert len(verdicts) == len(expected) == 400
    assert sum(one != other for one, other in zip(verdicts, expected, strict=True)) <= 1
    assert 0 < known.threats[0].worst.count < known.clean.count


@pytest.mark.slow
def test_a_run_again_with_other_processes_changes_no_bit(uploads: Path, tmp_path: Path) -> None:
    files = []
    for processes in (1, 2):
        given = order(tmp_path / str(processes), uploads / "fixed.onnx", uploads / "data.npz", LINF | {"attacks": [PGD]})
        assert isinstance(serve(given, processes), Done)
        files.append((Path(given.out) / "rows.csv").read_bytes())
    assert files[0] == files[1]


@pytest.fixture(scope="module")
def scores_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear classifier behind a Fourier transform that changes nothing, which torch is not asked for."""
    nodes = [node("Flatten", "x", "flat"), node("Gemm", "flat w", "z"), node("Unsqueeze", "z last", "long"), node("DFT", "long", "f")]
    nodes += [node("ReduceSum", "f last", "sum", keepdims=0), node("Mul", "sum none", "still"), node("Add", "z still", "y")]
    weights = orders.trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)), epochs=3)[1].weight
    tensors = [tensor("w", weights.detach().numpy().T), tensor("last", [2], np.int64), tensor("none", 0.0)]
    return save(graph(nodes, tensors), tmp_path_factory.mktemp("scores") / "m.onnx")


@pytest.mark.slow
def test_a_model_of_scores_alone_is_attacked_through_them(scores_only: Path, tmp_path: Path) -> None:
    square: dict[str, Any] = {"kind": "square", "queries": 60}
    given = ordered(tmp_path, scores_only, LINF | {"attacks": [NOISE, PGD, square]})
    served(given)
    told = report(given)
    assert [found.code for found in told.warnings][:2] == ["score_access_only", "attacks_left_out"]
    assert "DFT has no counterpart" in told.warnings[0].message
    assert told.warnings[1].evidence == {"attacks": ["pgd"]}
    assert [[each.name for each in result.each] for result in told.threats] == [["noise", "square"]] * 2
    assert told.cost.backwards == 0
    assert told.clean.count > 90
    assert told.threats[1].worst.count < told.clean.count - 10
    assert "square" in {row["broken_by"] for row in rows(given)}
    assert told.provenance.search == ("no copy: the judge itself is asked",)
    assert "DFT has no counterpart" in (Path(given.out) / "report.md").read_text()


def test_a_suite_is_run_without_what_needs_a_gradient(scores_only: Path, tmp_path: Path) -> None:
    given = ordered(tmp_path, scores_only, {"threats": LINF["threats"][:1], "suite": "quick"})
    facts, _ = preflight(given, torch.device("cpu"), 64)
    assert {attack.access for attack in feasible(given.job, given.job.threats[0], facts)} == {"decision"}
    assert [found.code for found in facts.findings] == ["score_access_only", "attacks_left_out"]
    assert {"fgsm", "pgd"} <= set(facts.findings[1].evidence["attacks"])


@pytest.mark.parametrize(
    "job",
    [
        LINF | {"attacks": [PGD, {"kind": "fgsm"}]},
        LINF | {"suite": "quick", "knowledge": ["white"]},
        {"kind": "craft", "threat": LINF["threats"][0], "attack": PGD},
    ],
    ids=["attacks", "suite", "craft"],
)
def test_a_job_of_gradient_attacks_alone_is_refused(job: dict[str, Any], scores_only: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pgd") as refused:
        preflight(ordered(tmp_path, scores_only, job), torch.device("cpu"), 64)
    assert (refused.value.reason.code, refused.value.reason.detail) == ("unsupported", "score_access_only")
    assert refused.value.reason.hint


def test_a_refusal_reaches_the_user_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08\x12\x07pytorch\x3a\x50" + bytes(9))
    said = serve(ordered(tmp_path, path))
    assert isinstance(said, Failed)
    assert (said.reason.code, said.reason.detail) == ("bad_model", "malformed")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["256x2", "256x4", "256x6"])
@pytest.mark.slow
def test_what_verifiers_proved_is_never_broken(name: str, realdata: Path, tmp_path: Path) -> None:
    """VNN-COMP 2021: of the boxes around MNIST images some are proved free of counterexamples; others are known to hold one."""
    folder = realdata / "models" / "vnncomp_mnist_fc_2021"
    with (folder / "instances.csv").open(newline="") as file:
        instances = [row for row in csv.DictReader(file) if row["onnx"] == f"mnist-net_{name}.onnx" and row["eps_in_name"] == "0.03"]
    index = [int(row["idx"]) for row in instances]
    with np.load(folder / "boxes.npz") as boxes:
        x = boxes["x0"][index].clip(0, 1).astype(np.float32)
        assert (boxes["lb"][index] <= (x - 0.029999).clip(0, 1)).all()
        assert (boxes["ub"][index] >= (x + 0.029999).clip(0, 1)).all()
    np.savez(tmp_path / "data.npz", x=x, y=[int(row["true_label"]) for row in instances])
    # A hair inside the box: neither the rounding of x0 to float32 nor of eps leads out of it.
    job = {"threats": [{"norm": "linf", "eps": 0.029999}], "attacks": [{"kind": "pgd", "steps": 40, "restarts": 2}]}
    path = folder / "onnx" / f"mnist-net_{name}.onnx"
    given = order(tmp_path, path, tmp_path / "data.npz", job, meaning=DataSpec(bounds=(0.0, 1.0)))
    served(given)
    broken = {int(row["row"]) for row in rows(given) if row["broken"] == "1"}
    proved = {at for at, row in enumerate(instances) if row["verdict"] == "unsat"}
    refuted = {at for at, row in enumerate(instances) if row["verdict"] == "sat" and row["found_by_40x10_PGD"] == "1"}
    assert proved
    assert not broken & proved
    assert refuted <= broken

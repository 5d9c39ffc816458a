"""A universal perturbation in a job: fitted on rows that are not evaluated, kept, added to every row, told of in the report."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from workers.orders import order, report, running, serve, talk

from sparring.contract.runner import Done, Order, Other, Told
from sparring.contract.specs import DataSpec
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight
from workers import orders

UAP = {"kind": "uap", "steps": 20, "batch": 64}
JOB = {"threats": [{"norm": "linf", "eps": 0.1}, {"norm": "linf", "eps": 0.2}], "attacks": [UAP], "rows": 200}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = orders.uploaded(tmp_path_factory.mktemp("uploads"), 600)
    np.savez(folder / "bare.npz", x=orders.digits()[0][600:900])
    return folder


@pytest.fixture(scope="module")
def done(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    given = order(tmp_path_factory.mktemp("job"), uploads / "model.pt2", uploads / "data.npz", JOB)
    assert isinstance(serve(given), Done)
    return given


@pytest.mark.slow
def test_the_report_tells_what_it_was_fitted_on_and_what_it_took(done: Order) -> None:
    told = report(done)
    fitted = []
    for result in told.threats:
        (each,) = result.each
        assert each.surrogates == ()
        assert each.universal is not None
        assert each.universal.rows == each.universal.fooled.total == 400, "rows that are not evaluated, and no others"
        assert each.universal.queries == 20 * 64 + 2 * 400
        assert 0 < each.broken < each.entered
        assert each.backwards == 0, "a row costs no slope"
        fitted.append(each.universal)
    assert fitted[0].fooled.count < fitted[1].fooled.count
    asked = sum(each.queries for result in told.threats for each in result.each)
    assert told.cost.queries == asked + 200 + sum(each.queries for each in fitted)
    text = (Path(done.out) / "report.md").read_text()
    assert "fitted on 400 rows" in text


@pytest.mark.slow
def test_every_broken_row_is_moved_by_the_same_perturbation(done: Order) -> None:
    shifts = [load_file(path)["v"] for path in (Path(done.out) / "shards").glob("universal-*.safetensors")]
    assert len(shifts) == 2, "one for each threat"
    x = torch.from_numpy(orders.digits()[0]).float() / 255
    with np.load(Path(done.out) / "examples.npz") as kept:
        rows, moved = kept["row"], torch.from_numpy(kept["x"])
    wrong = [torch.equal(own, x[row]) for row, own in zip(rows, moved, strict=True)]  # before anything was added
    assert not all(wrong)
    for row, own, before in zip(rows, moved, wrong, strict=True):
        assert before or any(torch.allclose(own, (x[row] + v).clamp(0, 1), atol=1e-6) for v in shifts)


@pytest.mark.slow
def test_a_killed_runner_does_not_fit_again_and_ends_with_the_same_bytes(done: Order, uploads: Path, tmp_path: Path) -> None:
    given = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB)
    with running(1) as runner:
        for said in talk(runner, given):
            if isinstance(said, Told) and said.progress.phase == "attack":
                os.killpg(runner.pid, signal.SIGKILL)
    folder, first = tmp_path / "out" / "shards", Path(done.out)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("universal-*.safetensors")}
    assert len(kept) == 2
    assert all(torch.equal(load_file(folder / name)["v"], load_file(first / "shards" / name)["v"]) for name in kept)
    assert isinstance(serve(given, processes=1), Done)
    assert kept == {path.name: path.stat().st_mtime_ns for path in folder.glob("universal-*.safetensors")}
    assert (tmp_path / "out" / "rows.csv").read_bytes() == (first / "rows.csv").read_bytes()


@pytest.mark.slow
def test_training_data_need_no_labels(uploads: Path, tmp_path: Path) -> None:
    job = JOB | {"threats": JOB["threats"][:1], "attacks": [UAP | {"limit": 150}], "rows": 60, "training": "2" * 64}
    given = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", job)
    info = given.data.model_copy(update={"sha256": orders.sha256(uploads / "bare.npz"), "spec": DataSpec()})
    given = given.model_copy(update={"others": {"training": Other(info=info, path=str(uploads / "bare.npz"))}})
    assert isinstance(serve(given, processes=1), Done)
    (each,) = report(given).threats[0].each
    assert each.universal is not None
    assert each.universal.rows == 150


def test_without_rows_of_its_own_it_is_left_out_or_the_job_refused(uploads: Path, tmp_path: Path) -> None:
    fgsm = {"kind": "fgsm"}
    given = order(tmp_path / "a", uploads / "model.pt2", uploads / "data.npz", JOB | {"rows": None, "attacks": [fgsm, UAP]})
    facts, _ = preflight(given, torch.device("cpu"), 64)
    (found,) = [finding for finding in facts.findings if finding.code == "training_absent"]
    assert found.evidence == {"attacks": ["uap"]}
    with pytest.raises(Refused, match="every row is evaluated"):
        preflight(order(tmp_path / "b", uploads / "model.pt2", uploads / "data.npz", JOB | {"rows": None}), torch.device("cpu"), 64)

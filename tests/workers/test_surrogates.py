"""Surrogates and substitutes in a job: trained on rows that are not evaluated, kept, told of in the report."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from workers.orders import order, report, running, serve, talk

from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.runner import Done, Failed, Order, Other, Told
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.workers.architectures import architecture
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight
from workers import orders

FGSM = {"kind": "fgsm"}
TRANSFER = {"kind": "transfer", "attack": FGSM, "architectures": ["mlp"], "epochs": 8}
SUBSTITUTE = {"kind": "substitute", "attack": FGSM, "seeds": 60, "rounds": 3, "epochs": 30}
JOB = {"threats": [{"norm": "linf", "eps": 0.1}, {"norm": "linf", "eps": 0.2}], "attacks": [FGSM, TRANSFER, SUBSTITUTE], "rows": 200}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return orders.uploaded(tmp_path_factory.mktemp("uploads"), 600)


def ordered(folder: Path, uploads: Path, job: dict[str, object], training: Path | None = None, **others: Path) -> Order:
    given = order(folder, uploads / "model.pt2", uploads / "data.npz", job | ({"training": "2" * 64} if training else {}))
    told: dict[str, ModelInfo | DatasetInfo] = {}
    if training:
        told["training"] = given.data.model_copy(update={"sha256": orders.sha256(training), "spec": DataSpec()})
    for name, path in others.items():
        told[name] = given.model.model_copy(update={"sha256": orders.sha256(path), "spec": ModelSpec()})
    paths = {"training": training, **others}
    return given.model_copy(update={"others": {name: Other(info=info, path=str(paths[name])) for name, info in told.items()}})


@pytest.fixture(scope="module")
def done(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    given = ordered(tmp_path_factory.mktemp("job"), uploads, JOB)
    assert isinstance(serve(given), Done)
    return given


@pytest.mark.slow
def test_the_report_tells_of_every_surrogate_and_what_it_took(done: Order) -> None:
    told = report(done)
    for result in told.threats:
        white, gray, black = result.each
        assert white.surrogates == ()
        (mlp,), (other,) = gray.surrogates, black.surrogates
        assert (mlp.name, mlp.rows, mlp.queries) == ("mlp", 400, 0), "rows that are not evaluated, and no others"
        assert (other.name, other.rows, other.queries) == ("substitute", 60, 240)
        for each in (mlp, other):
            assert each.accuracy is not None
            assert each.accuracy.total == each.agreement.total == 200
            assert each.agreement.rate > 0.5
    assert told.cost.queries == sum(each.queries for result in told.threats for each in result.each) + 200 + 240


@pytest.mark.slow
def test_who_knows_more_breaks_more_and_the_levels_are_those_of_the_rows(done: Order) -> None:
    told = report(done)
    lines = [line.split(",") for line in (Path(done.out) / "rows.csv").read_text().splitlines()]
    column = {name: at for at, name in enumerate(lines[0])}
    for result in told.threats:
        white, gray, black = result.levels
        assert white.robust.count <= gray.robust.count <= black.robust.count < told.clean.count
        own = [line for line in lines[1:] if float(line[column["eps"]]) == result.threat.radius and line[column["broken_by"]] != "clean"]
        for level in result.levels:
            assert level.robust.count == sum(line[column[level.knowledge]] == "0" for line in own)


@pytest.mark.slow
def test_a_killed_runner_does_not_train_again_and_ends_with_the_same_bytes(done: Order, uploads: Path, tmp_path: Path) -> None:
    given = ordered(tmp_path, uploads, JOB)
    with running(1) as runner:
        for said in talk(runner, given):
            if isinstance(said, Told) and said.progress.phase == "attack":
                os.killpg(runner.pid, signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").glob("surrogate-*.safetensors")}
    assert len(kept) == 2
    assert isinstance(serve(given, processes=1), Done)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").glob("surrogate-*.safetensors")}
    assert (tmp_path / "out" / "rows.csv").read_bytes() == (Path(done.out) / "rows.csv").read_bytes()


def test_without_rows_of_its_own_such_an_attack_is_left_out_or_the_job_refused(uploads: Path, tmp_path: Path) -> None:
    facts, _ = preflight(ordered(tmp_path / "a", uploads, JOB | {"rows": None}), torch.device("cpu"), 64)
    (found,) = [finding for finding in facts.findings if finding.code == "training_absent"]
    assert found.evidence == {"attacks": ["substitute", "transfer"]}
    with pytest.raises(Refused, match="every row is evaluated") as refused:
        preflight(ordered(tmp_path / "b", uploads, JOB | {"rows": None, "attacks": [TRANSFER]}), torch.device("cpu"), 64)
    assert "fewer `rows`" in refused.value.reason.hint


@pytest.mark.slow
def test_training_data_of_their_own_are_used_and_checked(uploads: Path, tmp_path: Path) -> None:
    x, y = orders.digits()
    np.savez(tmp_path / "training.npz", x=x[700:1000], y=y[700:1000])
    np.savez(tmp_path / "flat.npz", x=x[700:1000].reshape(-1, 64), y=y[700:1000])
    job = {"threats": JOB["threats"][:1], "attacks": [TRANSFER | {"limit": 250}], "rows": 60}
    given = ordered(tmp_path, uploads, job, training=tmp_path / "training.npz")
    assert isinstance(serve(given, processes=1), Done)
    assert report(given).threats[0].each[0].surrogates[0].rows == 250
    with pytest.raises(Refused, match=r"rows of the training data have shape \[64\]"):
        preflight(ordered(tmp_path / "b", uploads, job, training=tmp_path / "flat.npz"), torch.device("cpu"), 64)


@pytest.mark.slow
def test_an_uploaded_model_is_a_surrogate_if_it_tells_the_same_classes_apart(uploads: Path, tmp_path: Path) -> None:
    orders.export(orders.trained(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), epochs=3), tmp_path / "other.pt2")
    orders.export(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), tmp_path / "three.pt2")
    ref = "mdl_" + "c" * 20
    job = {"threats": JOB["threats"][:1], "attacks": [{"kind": "transfer", "models": [ref]}], "rows": 100}
    given = ordered(tmp_path, uploads, job, **{ref: tmp_path / "other.pt2"})
    assert isinstance(serve(given, processes=1), Done)
    told = report(given).threats[0].each[0]
    assert (told.surrogates[0].name, told.surrogates[0].rows) == (ref, 0)
    assert told.broken > 0
    failed = serve(ordered(tmp_path / "b", uploads, job, **{ref: tmp_path / "three.pt2"}), processes=1)
    assert isinstance(failed, Failed)
    assert failed.reason.detail == "classes"
    assert "3 classes" in failed.reason.message


def test_what_an_architecture_cannot_read_is_said() -> None:
    with pytest.raises(Refused, match="channels by at least 32 samples"):
        architecture("eegnet", (1, 8, 8), 10)
    with pytest.raises(Refused, match="pictures of at least 4 by 4"):
        architecture("cnn", (64,), 10)
    assert architecture("eegnet", (6, 64), 3)(torch.zeros(2, 6, 64)).shape == (2, 3)
    assert architecture("cnn", (12, 12), 3)(torch.zeros(2, 12, 12)).shape == (2, 3)

"""Which epoch's weights are handed out, and when a training stops early: by the validation rows, and by nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from workers.onnx_nets import exported
from workers.orders import digits, export, order, sha256, trained

from sparring.contract.defenses import AnyDefense, EnsembleTraining, PGDTraining, Training
from sparring.contract.endpoints import HttpEndpoint
from sparring.contract.resources import ModelInfo
from sparring.contract.retrain import Retrain
from sparring.contract.runner import Other, TrainingOrder
from sparring.contract.specs import ModelSpec
from sparring.contract.threat import Threat
from sparring.defenses.training import train
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight
from sparring.workers.retraining import coach
from sparring.workers.retraining.coach import Result, Train, recall
from sparring.workers.retraining.exam import Exam, Marks
from sparring.workers.retraining.rows import lesson, opened, split
from sparring.workers.retraining.trainee import trainee

EPOCHS, ROWS = 5, 300
DEFENSE = PGDTraining(eps=0.1, steps=2)


def task(
    folder: Path,
    x: np.ndarray,
    y: np.ndarray,
    patience: int | None = None,
    defense: AnyDefense = DEFENSE,
    others: dict[str, Other] | None = None,
) -> Train:
    """A small network to be trained on these rows."""
    torch.manual_seed(0)
    model = export(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)), folder / "m.pt2"
    )
    np.savez(folder / "data.npz", x=x, y=y)
    asked = order(folder, model, folder / "data.npz", {"threats": [{"norm": "linf", "eps": 0.1}]})
    facts, _ = preflight(asked, torch.device("cpu"), 64)
    job = Retrain(
        model=asked.model.sha256,
        data=asked.data.sha256,
        defenses=(defense,),
        training=Training(epochs=EPOCHS, monitor=0),
        validation=0.2,
        patience=patience,
    )
    given = {name: getattr(asked, name) for name in ("model", "model_path", "data", "data_path", "cache", "out")}
    wanted = TrainingOrder(job=job, others=others or {}, **given)
    return Train(wanted, 0, facts, (Threat(norm="linf", eps=0.1),), folder / "trained", "plan")


def coached(given: Train) -> tuple[Result, dict[str, torch.Tensor]]:
    """What came of the task, and the weights that are handed out."""
    coach.coach(given, torch.device("cpu"), lambda told: None)
    result = recall(given.folder, given.plan)
    assert result is not None
    return result, load_file(given.folder / result.files["safetensors"])


def after(given: Train, epoch: int) -> dict[str, torch.Tensor]:
    """Weights at the end of an epoch of the same training, of which nobody makes a choice."""
    data = opened(given.order)
    own = trainee(given.order, data, given.facts, torch.device("cpu"))
    course = train(own.model, DEFENSE, lesson(data, split(given.order.job, data).training), given.order.job.training)
    for told in course:
        if told.epoch == epoch:
            return own.weights()
    raise AssertionError(f"there is no epoch {epoch}")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("patience", "marks", "epochs", "best"),
    [
        pytest.param(2, [(3, 9), (9, 12), (7, 14), (8, 15), (20, 20)], 4, 2, id="the second is best; two more do not better it"),
        pytest.param(None, [(3, 9), (9, 12), (7, 14), (8, 15), (8, 16)], 5, 2, id="nobody waits, and the last is not taken"),
        pytest.param(2, [(3, 9), (4, 8), (5, 7), (6, 6), (7, 5)], 5, 5, id="it goes on while it gets better, whatever it costs clean rows"),
        pytest.param(2, [(5, 9), (5, 9), (5, 10), (9, 12), (9, 12)], 3, 3, id="clean rows decide between equals, and end no waiting"),
        pytest.param(2, [(5, 9), (2, 9), (6, 9), (5, 9), (4, 9)], 5, 3, id="waiting begins anew"),
    ],
)
def test_the_epoch_with_the_best_robust_validation_accuracy_is_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None, marks: Sequence[tuple[int, int]], epochs: int, best: int
) -> None:
    """Rows right under PGD, and clean, in each epoch."""
    x, y = digits()
    given = task(tmp_path, x[:ROWS], y[:ROWS], patience)
    told = iter([Marks(clean, robust, robust, 60) for robust, clean in marks])
    monkeypatch.setattr(Exam, "sit", lambda exam, model: next(told))
    result, weights = coached(given)
    assert (result.epochs, result.epoch, result.marks) == (epochs, best, marks[best - 1])
    assert result.end == ("stopped_early" if epochs < EPOCHS else "finished")
    assert [epoch.epoch for epoch in result.curve] == list(range(1, epochs + 1))
    assert same(weights, after(given, best))


def test_the_choice_is_made_on_the_validation_rows_and_never_on_the_test_rows(tmp_path: Path) -> None:
    """Pictures of the test rows made noise change nothing; those of the validation rows change the marks, and no weights."""
    x, y = digits()
    x, y = x[:ROWS], y[:ROWS]
    found = {}
    for name in ("as they are", "test", "validation"):
        (tmp_path / name).mkdir()
        given = task(tmp_path / name, x, y)
        if name != "as they are":
            rows = getattr(split(given.order.job, opened(given.order)), name).numpy()
            spoilt = x.copy()
            spoilt[rows] = np.random.default_rng(0).integers(0, 256, spoilt[rows].shape, np.uint8)
            given = task(tmp_path / name, spoilt, y)
        result, weights = coached(given)
        assert same(weights, after(given, result.epoch))
        found[name] = result.curve, result.epoch, weights
    curve, epoch, weights = found["as they are"]
    assert found["test"][:2] == (curve, epoch)
    assert same(found["test"][2], weights)
    assert [each.loss for each in found["validation"][0]] == [each.loss for each in curve]
    assert [each.robust for each in found["validation"][0]] != [each.robust for each in curve]
    robust = [each.robust.count for each in curve if each.robust]
    assert robust[epoch - 1] == max(robust)


REF = "mdl_" + "c" * 20
ENSEMBLE = EnsembleTraining(eps=0.1, models=(REF,))


def rival(path: Path, spec: ModelSpec | None = None) -> dict[str, Other]:
    """An uploaded model beside the one that is trained."""
    form = "onnx" if path.suffix == ".onnx" else "pt2"
    told = {"id": REF, "name": path.name, "sha256": sha256(path), "size": 1, "created": datetime.now(UTC)}
    return {REF: Other(info=ModelInfo(format=form, spec=spec or ModelSpec(), **told), path=str(path))}


def linear(classes: int = 10, inputs: int = 64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes))


def test_rows_are_moved_against_the_uploaded_surrogate_and_the_result_names_it(tmp_path: Path) -> None:
    x, y = digits()
    other = trained(linear(), epochs=3)
    others = rival(export(other, tmp_path / "other.pt2"))
    given = task(tmp_path, x[:ROWS], y[:ROWS], defense=ENSEMBLE, others=others)
    result, weights = coached(given)
    assert result.notes == (f"surrogate other.pt2, sha256 {others[REF].info.sha256}",)
    data = opened(given.order)
    own = trainee(given.order, data, given.facts, torch.device("cpu"))
    known = lesson(data, split(given.order.job, data).training)
    for told in train(own.model, ENSEMBLE, known, given.order.job.training, surrogates=[other]):
        if told.epoch == result.epoch:
            expected = own.weights()
    assert all(torch.allclose(weights[name], expected[name], atol=1e-5) for name in expected)
    assert not same(weights, after(given, result.epoch))


def test_a_training_against_a_surrogate_that_is_cut_off_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = digits()
    others = rival(export(trained(linear(), epochs=3), tmp_path / "other.pt2"))
    monkeypatch.setattr(coach, "_SECONDS", 0.0)
    monkeypatch.setattr(coach, "_SHARE", 0.0)
    found = []
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        given = task(tmp_path / name, x[:ROWS], y[:ROWS], defense=ENSEMBLE, others=others)
        if name == "cut":

            def stop(told: coach.Trained) -> None:
                if told.done > 0.5:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                coach.coach(given, torch.device("cpu"), stop)
        found.append(coached(given))
    (whole, weights), (cut, again) = found
    assert 0 < cut.resumed < EPOCHS
    assert same(weights, again)
    assert cut.curve == whole.curve


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("three.pt2", "classes", "the surrogate three.pt2 has 3 classes, the target 10"),
        ("wide.pt2", "shape_mismatch", "the surrogate wide.pt2: the model reads rows of shape"),
        ("graph.onnx", "score_access_only", "the surrogate graph.onnx has no gradient to follow here"),
        ("broken.pt2", "malformed", "the surrogate broken.pt2: "),
    ],
)
def test_a_surrogate_that_does_not_fit_is_refused_by_its_name(tmp_path: Path, path: str, code: str, said: str) -> None:
    x, y = digits()
    file = tmp_path / path
    match path:
        case "three.pt2":
            export(linear(3), file)
        case "wide.pt2":
            export(linear(10, 100), file, (1, 10, 10))
        case "graph.onnx":
            exported(linear(), file)
        case _:
            file.write_bytes(b"no archive")
    with pytest.raises(Refused) as refused:
        coached(task(tmp_path, x[:ROWS], y[:ROWS], defense=ENSEMBLE, others=rival(file)))
    assert refused.value.reason.message.startswith(said)
    assert refused.value.reason.detail == code
    assert refused.value.reason.hint


def test_an_endpoint_is_no_surrogate(tmp_path: Path) -> None:
    x, y = digits()
    (tmp_path / "none").write_bytes(b"")
    others = rival(tmp_path / "none", ModelSpec(endpoint=HttpEndpoint(url="http://127.0.0.1:9/", shape=(1, 8, 8))))
    with pytest.raises(Refused, match="the surrogate none is an endpoint, which has no gradient"):
        coached(task(tmp_path, x[:ROWS], y[:ROWS], defense=ENSEMBLE, others=others))

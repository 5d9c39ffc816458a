"""Common corruptions in an evaluation: which data can suffer them, and that the report counts what the judge says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workers.orders import digits, export, network, order, report, serve, trained

from sparring.attacks import random
from sparring.contract.corruptions import SEVERITIES
from sparring.contract.runner import Done, Failed, Order
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.workers import corruptions
from sparring.workers.bench import Bench
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight

THREATS = [{"norm": "linf", "eps": 0.02}]
ASKED = ["gaussian_noise", "brightness", "pixelate"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained(network()), tmp_path_factory.mktemp("model") / "model.pt2")


def made(folder: Path, model: Path, asked: list[str], x: np.ndarray | None = None, meaning: DataSpec | None = None, **job: object) -> Order:
    images, labels = digits()
    rows = images[:150] if x is None else x
    np.savez(folder / "data.npz", x=rows, y=labels[: len(rows)])
    given = {"threats": THREATS, "attacks": [{"kind": "fgsm"}], "corruptions": asked}
    return order(folder, model, folder / "data.npz", given | job, None, meaning)


def bench(given: Order) -> Bench:
    return preflight(given, torch.device("cpu"), 64)[1]


@pytest.mark.slow
def test_the_report_counts_rows_right_of_all_rows(model: Path, tmp_path: Path) -> None:
    given = made(tmp_path, model, ASKED)
    assert isinstance(serve(given), Done)
    told = report(given)
    assert [result.name for result in told.corruptions] == ASKED
    again = bench(given)
    x, labels = again.rows(torch.arange(150)), torch.from_numpy(digits()[1][:150])
    key = random.keys(0, torch.arange(150))
    right = corruptions.suffer(given.job, again, x, labels, key, lambda more: None)
    for at, result in enumerate(told.corruptions):
        assert [score.total for score in result.severities] == [150] * SEVERITIES
        assert [score.count for score in result.severities] == right[:, at].sum(0).tolist()
        assert 0.1 < result.mean.rate <= 1
    assert told.corrupted.total == 150 * len(ASKED) * SEVERITIES
    assert told.corrupted.rate == pytest.approx(np.mean([result.mean.rate for result in told.corruptions]))
    fgsm = told.threats[0].each[0]
    assert told.cost.queries == fgsm.queries + 150 + told.corrupted.total
    assert told.cost.forwards == fgsm.forwards + 150 + told.corrupted.total
    written = json.loads((Path(given.out) / "report.json").read_text())
    assert written["corruptions"][0]["severities"][0] == {"count": int(right[:, 0, 0].sum()), "total": 150}
    for file in ("report.html", "report.md"):
        assert "gaussian noise" in (Path(given.out) / file).read_text()


def test_the_other_rows_change_nothing(model: Path, tmp_path: Path) -> None:
    given = made(tmp_path, model, ["gaussian_noise", "glass_blur", "motion_blur"])
    again = bench(given)
    x, labels, key = again.rows(torch.arange(150)), torch.from_numpy(digits()[1][:150]), random.keys(0, torch.arange(150))
    whole = corruptions.suffer(given.job, again, x, labels, key, lambda more: None)
    told: list[int] = []
    part = torch.arange(40, 110)
    assert np.array_equal(corruptions.suffer(given.job, again, x[part], labels[part], key[part], told.append), whole[part])
    assert sum(told) == 70 * 3


class Seen(nn.Module):
    """Right where the picture, read as it is declared, is what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return torch.stack((x.flatten(1).sum(1), torch.zeros(len(x))), 1)


@pytest.mark.parametrize(
    ("row", "meaning"),
    [
        ((9, 8), DataSpec(bounds=(0, 1))),
        ((1, 9, 8), DataSpec(bounds=(-1, 3))),
        ((3, 9, 8), DataSpec(bounds=(0, 255))),
        ((9, 8, 3), DataSpec(bounds=(-2, -1), layout="NHWC")),
        ((9, 8, 1), DataSpec(bounds=(0, 1), layout="NHWC")),
    ],
)
def test_pictures_are_read_and_given_back_as_the_data_hold_them(row: tuple[int, ...], meaning: DataSpec, tmp_path: Path) -> None:
    low, high = meaning.bounds  # type: ignore[misc]
    x = np.random.default_rng(0).uniform(low, high, (20, *row)).astype(np.float32)
    shown = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(row)), 10))
    given = made(tmp_path, export(shown, tmp_path / "model.pt2", row), ["contrast"], x, meaning)
    given = given.model_copy(update={"model": given.model.model_copy(update={"spec": ModelSpec(layout=meaning.layout)})})
    pieces = bench(given)
    pieces.target.judge = seen = Seen()
    rows = pieces.rows(torch.arange(20))
    corruptions.suffer(given.job, pieces, rows, torch.zeros(20, dtype=torch.int64), random.keys(0, torch.arange(20)), lambda more: None)
    last = seen.seen[SEVERITIES - 1][:20]
    axes = (1, 2) if meaning.layout == "NHWC" or len(row) == 2 else (2, 3)
    mean = rows.mean(axes, keepdim=True)
    assert last.shape == rows.shape
    assert torch.allclose(last, mean + 0.15 * (rows - mean), atol=1e-5 * (high - low))
    assert last.min() >= low
    assert last.max() <= high


def test_each_row_type_and_severity_has_draws_of_its_own(model: Path, tmp_path: Path) -> None:
    pieces = bench(made(tmp_path, model, ["gaussian_noise"]))
    pieces.target.judge = seen = Seen()
    rows = torch.full((64, 1, 8, 8), 0.5)
    job = made(tmp_path, model, ["gaussian_noise", "speckle_noise"]).job
    corruptions.suffer(job, pieces, rows, torch.zeros(64, dtype=torch.int64), random.keys(0, torch.arange(64)), lambda more: None)
    noise = torch.stack([((x - 0.5) / (x - 0.5).std())[:, 0, 0, 0] for x in seen.seen])
    assert noise.shape == (2 * SEVERITIES, 64)
    alike = torch.corrcoef(noise) - torch.eye(2 * SEVERITIES)
    assert alike.abs().max() < 0.5
    assert len(noise.flatten().unique()) > 600


def flat() -> np.ndarray:
    return digits()[0][:40].reshape(40, 64)


@pytest.mark.parametrize(
    ("x", "meaning", "asked", "said"),
    [
        (flat(), None, ["contrast"], "a row of the data has shape [64]"),
        (flat().reshape(40, 2, 4, 8), None, ["contrast"], "1 or 3 channels"),
        (flat().reshape(40, 1, 8, 8) / 255.0, DataSpec(bounds="none"), ["contrast"], "declare no bounds"),
        (flat().reshape(40, 1, 8, 8), None, ["saturate"], "saturate does nothing"),
    ],
)
def test_data_that_cannot_suffer_them_are_refused_before_any_attack(
    x: np.ndarray, meaning: DataSpec | None, asked: list[str], said: str, tmp_path: Path
) -> None:
    reader = export(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), tmp_path / "model.pt2", x.shape[1:])
    given = made(tmp_path, reader, asked, x, meaning)
    with pytest.raises(Refused) as refused:
        preflight(given, torch.device("cpu"), 16)
    assert refused.value.reason.code == "unsupported"
    assert said in refused.value.reason.message
    assert "corruption" in refused.value.reason.hint


@pytest.mark.slow
def test_a_job_on_such_data_fails_with_that_reason(tmp_path: Path) -> None:
    reader = export(nn.Linear(64, 10), tmp_path / "model.pt2", (64,))
    last = serve(made(tmp_path, reader, ["contrast"], flat()), 1)
    assert isinstance(last, Failed)
    assert (last.reason.code, last.reason.detail) == ("unsupported", "not_pictures")


def test_what_means_nothing_for_grey_pictures_is_left_out_and_said(model: Path, tmp_path: Path) -> None:
    given = made(tmp_path, model, ["contrast", "saturate"])
    facts, pieces = preflight(given, torch.device("cpu"), 64)
    assert [finding.evidence for finding in facts.findings] == [{"corruptions": ["saturate"]}]
    assert corruptions.chosen(given.job, pieces.data.row_shape, pieces.data.spec) == ("contrast",)


def test_without_corruptions_nothing_is_added(tmp_path: Path) -> None:
    given = made(tmp_path, export(nn.Linear(64, 10), tmp_path / "model.pt2", (64,)), [], flat())
    facts, pieces = preflight(given, torch.device("cpu"), 16)
    rows = pieces.rows(torch.arange(40))
    right = corruptions.suffer(given.job, pieces, rows, torch.zeros(40, dtype=torch.int64), random.keys(0, torch.arange(40)), print)
    assert right.shape == (40, 0, SEVERITIES)
    assert corruptions.results(given.job, facts, right) == ()

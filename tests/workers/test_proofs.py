"""Rows that a bound proves robust are not attacked: the number is the same, the work is less, and the report says so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from workers.orders import digits, export, network, order, report, serve, trained

from sparring.contract.report import Finding
from sparring.contract.runner import Done
from sparring.reports import rerun, text
from sparring.reports.markdown import escape
from sparring.workers.course import attack_shard
from sparring.workers.preflight import preflight
from sparring.workers.shard import UNBROKEN, Shard

THREATS = [{"norm": "linf", "eps": 0.01}, {"norm": "linf", "eps": 0.06}, {"norm": "l2", "eps": 0.1}]
ATTACKS = [{"kind": "pgd", "steps": 8}, {"kind": "square", "queries": 20}]
ROWS = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[::5], y=y[::5])
    export(trained(network()), folder / "relu.pt2")
    export(trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 10)), epochs=1), folder / "gelu.pt2")
    return folder


def attacked(files: Path, folder: Path, model: str = "relu", **job: object) -> tuple[Shard, tuple[Finding, ...]]:
    given = order(folder, files / f"{model}.pt2", files / "data.npz", {"threats": THREATS, "attacks": ATTACKS, "rows": ROWS} | job)
    facts, bench = preflight(given, torch.device("cpu"), 64)
    return attack_shard(given.job, bench, np.arange(ROWS), lambda more: None), facts.findings


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_verdicts_are_the_same_and_fewer_rows_are_attacked(files, tmp_path, cascade, targeted):
    asked = {"threats": [threat | {"targeted": targeted} for threat in THREATS], "cascade": cascade}
    (plain, _), (spared, findings) = (attacked(files, tmp_path / str(skip), skip_proved=skip, **asked) for skip in (False, True))
    assert not findings
    for before, after in zip(plain.ended, spared.ended, strict=True):
        assert not before.proved.any()
        assert after.proved.any()
        assert (after.broken_by == before.broken_by).all()
        assert (after.broken_by[after.proved] == UNBROKEN).all()
        assert (after.queries[after.proved] == 0).all()
        saved = [one.entered - two.entered for one, two in zip(before.tallies, after.tallies, strict=True)]
        assert saved == [after.proved.sum()] * len(ATTACKS)
        assert [one.left for one in after.tallies] == [one.left for one in before.tallies]
    small, large = spared.ended[0].proved, spared.ended[1].proved
    assert (large <= small).all()
    assert targeted or large.sum() < small.sum()


@pytest.mark.parametrize("kind", [{"kind": "apgd", "loss": "dlr", "targets": 9}, {"kind": "fab"}, {"kind": "square"}, {"kind": "vat"}])
def test_when_every_row_is_proved_there_is_nothing_to_attack(files, tmp_path, kind):
    shard, _ = attacked(files, tmp_path, threats=[{"norm": "l2", "eps": 1e-5}], attacks=[kind], cascade=True, skip_proved=True)
    (ended,) = shard.ended
    right = shard.clean == shard.labels
    assert (ended.proved == right).all()
    assert ended.tallies[0].entered == ended.tallies[0].forwards == ended.queries.sum() == 0
    assert ended.tallies[0].left == right.sum()


def test_one_class_that_cannot_be_reached_is_easier_to_prove_than_all(files, tmp_path):
    (one, _), (every, _) = (
        attacked(files, tmp_path / str(targeted), threats=[{"norm": "linf", "eps": 0.06, "targeted": targeted}], skip_proved=True)
        for targeted in (True, False)
    )
    assert (one.ended[0].proved >= every.ended[0].proved).all()
    assert one.ended[0].proved.sum() > every.ended[0].proved.sum()


def test_a_model_without_bounds_is_attacked_whole_and_told_why(files, tmp_path):
    (plain, silent), (asked, told) = (attacked(files, tmp_path / str(skip), "gelu", skip_proved=skip) for skip in (False, True))
    (found,) = (finding for finding in told if finding not in silent)
    assert found.code == "no_bound"
    assert "gelu" in found.message
    for before, after in zip(plain.ended, asked.ended, strict=True):
        assert not after.proved.any()
        assert [one.entered for one in after.tallies] == [one.entered for one in before.tallies]


def test_the_report_counts_what_was_proved_and_names_the_method(files, tmp_path):
    """What looks for the smallest change runs on proved rows too, and never breaks one of them within eps."""
    job = {"threats": THREATS[:2], "attacks": [*ATTACKS, {"kind": "deepfool"}], "rows": ROWS, "skip_proved": True}
    given = order(tmp_path, files / "relu.pt2", files / "data.npz", job)
    assert isinstance(serve(given, processes=1), Done)
    made = report(given)
    assert not made.warnings
    assert "CROWN" in made.provenance.proof
    for result in made.threats:
        assert 0 < result.proved <= result.worst.count
        assert result.each[2].entered == made.clean.count == result.each[0].entered + result.each[0].carried + result.proved
        told = text.proved_text(result, made)
        assert told in (Path(given.out) / "report.html").read_text()
        assert escape(told) in (Path(given.out) / "report.md").read_text()
    assert "--skip-proved" in rerun.command(made)

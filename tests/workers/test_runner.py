"""A runner as a process: the files it leaves, and that kills, processes and re-runs change no bit of them."""

import contextlib
import csv
import io
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from workers.orders import gone, order, report, running, serve, talk, wait_for

from sparring.attacks import random
from sparring.contract.report import ROW_COLUMNS
from sparring.contract.runner import Done, Failed, Told
from sparring.contract.specs import ModelSpec
from sparring.reports.pictures import PICTURES, Album
from sparring.workers.models import load_model
from workers import orders

THREATS = [{"norm": "linf", "eps": 0.05}, {"norm": "linf", "eps": "8/255"}, {"norm": "l2", "eps": 0.5}]
JOB = {"threats": THREATS, "attacks": [{"kind": "noise", "draws": 3}, {"kind": "pgd", "steps": 8, "restarts": 2}]}
FILES = {"report.json", "report.html", "report.md", "rows.csv", "rows.parquet", "examples.npz", "pictures.zip"}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt2 and data.npz (300 rows of digits, uint8)."""
    return orders.uploaded(tmp_path_factory.mktemp("uploads"), 300)


@pytest.fixture(scope="module")
def done(uploads: Path, tmp_path_factory: pytest.TempPathFactory):
    given = order(tmp_path_factory.mktemp("job"), uploads / "model.pt2", uploads / "data.npz", JOB)
    last = serve(given)
    assert isinstance(last, Done)
    assert set(last.files) == FILES
    return given


def table(given) -> list[dict[str, str]]:
    with (Path(given.out) / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_tell_every_row_under_every_threat(done) -> None:
    rows = table(done)
    assert tuple(rows[0]) == ROW_COLUMNS
    assert len(rows) == 300 * len(THREATS)
    assert sorted(int(row["row"]) for row in rows) == sorted(list(range(300)) * len(THREATS))
    parquet = pyarrow.parquet.read_table(Path(done.out) / "rows.parquet").to_pylist()
    assert [(row["row"], row["eps"], row["broken"], row["broken_by"]) for row in parquet] == [
        (int(row["row"]), float(row["eps"]), int(row["broken"]), row["broken_by"]) for row in rows
    ]


def test_report_counts_what_the_rows_say(done) -> None:
    rows, told = table(done), report(done)
    for result in told.threats:
        own = [row for row in rows if row["norm"] == result.threat.norm and float(row["eps"]) == result.threat.radius]
        assert result.worst.count == sum(row["broken"] == "0" for row in own)
        assert result.worst.total == len(own) == told.clean.total == 300
        assert told.clean.count == sum(row["clean_prediction"] == row["label"] for row in own)
        assert sum(result_.first for result_ in result.each) == sum(row["broken_by"] not in ("", "clean") for row in own)
        assert all((row["broken_by"] == "clean") == (row["clean_prediction"] != row["label"]) for row in own)
        assert all((row["prediction"] != row["label"]) == (row["broken"] == "1") for row in own)
        assert sum(score.robust.count for score in result.classes) == result.worst.count
        assert {each.name for each in result.each} == {"noise", "pgd"}
        assert [sum(each.distances) for each in result.each] == [each.first for each in result.each]
        wrong = Counter((int(row["label"]), int(row["prediction"])) for row in own if row["broken"] == "1")
        assert {(move.label, move.prediction): move.worst for move in result.moves} == wrong
        assert sum(move.clean for move in result.moves) == told.clean.total - told.clean.count
    eps = [point.eps for point in told.curve if point.norm == "linf"]
    assert eps == sorted(eps)
    assert eps[0] == 0
    assert told.provenance.rows_independent
    page = (Path(done.out) / "report.html").read_text()
    assert 'id="confusion"' in page
    assert 'id="distances"' in page


def test_every_query_stands_in_the_rows_and_in_the_cost(done) -> None:
    rows, told = table(done), report(done)
    attacks = [each for result in told.threats for each in result.each]
    assert sum(int(row["queries"]) for row in rows) == sum(each.queries for each in attacks)
    assert told.cost.forwards == sum(each.forwards for each in attacks) + 300
    assert told.cost.queries <= told.cost.forwards, "what tries begun ahead of the one that succeeded cost is not the row's"
    assert told.cost.backwards == sum(each.backwards for each in attacks)
    for result in told.threats:
        for each in result.each:
            assert each.robust.count == each.entered - each.broken
            assert each.entered + each.carried == told.clean.count
        distances = [
            float(row["distance"]) for row in rows if row["broken_by"] not in ("", "clean") and float(row["eps"]) == result.threat.radius
        ]
        assert result.median_distance == pytest.approx(np.median(distances))


def test_what_is_kept_to_be_looked_at_is_what_was_found(done) -> None:
    """Each broken row under each threat as x' shows it, and each row that was wrong as it is; 8 x 8 pixels leave room for all."""
    kept = {(row["row"], row["norm"], float(row["eps"])): row["broken_by"] for row in table(done) if row["broken"] == "1"}
    threats = [(result.threat.norm, result.threat.radius) for result in report(done).threats]
    with np.load(done.data_path) as data, np.load(Path(done.out) / "examples.npz") as file:
        clean, examples = data["x"], {name: file[name] for name in ("row", "threat", "x")}
    with Album(Path(done.out) / PICTURES) as album:
        for row, threat, x in zip(examples["row"], examples["threat"], examples["x"], strict=True):
            original, pictures = album.original(int(row)), album.broken(int(threat), int(row))
            np.testing.assert_array_equal(seen(original), clean[row][0])
            if kept.pop((str(row), *threats[threat])) == "clean":
                assert pictures is None
                continue
            np.testing.assert_array_equal(seen(pictures.adversarial), np.rint(x[0].astype(np.float64) * 255))
            moved = np.sign(seen(pictures.perturbation).astype(int) - 128) * np.sign(x[0] - clean[row][0] / np.float32(255))
            assert (moved >= 0).all()
            assert (moved > 0).any()
    assert not kept


def seen(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_every_example_is_a_break_for_whoever_looks(done) -> None:
    """By a module loaded afresh, row by row, in float64, without the service."""
    model = load_model(Path(done.model_path), "pt2", ModelSpec()).module
    with np.load(done.data_path) as data, np.load(Path(done.out) / "examples.npz", allow_pickle=False) as examples:
        rows, threats, x = examples["row"], examples["threat"], examples["x"]
        clean, labels = data["x"].astype(np.float64) / 255, data["y"]
    broken = {(int(row["row"]), row["norm"], float(row["eps"])) for row in table(done) if row["broken"] == "1"}
    named = [report(done).threats[at].threat for at in threats]
    distances = {(int(row["row"]), row["norm"], float(row["eps"])): float(row["distance"] or 0) for row in table(done)}
    assert {(int(row), threat.norm, threat.radius) for row, threat in zip(rows, named, strict=True)} == broken
    with torch.no_grad():
        assert (model(torch.from_numpy(x)).argmax(1).numpy() != labels[rows]).all()
    assert x.min() >= 0
    assert x.max() <= 1
    for row, threat, point in zip(rows, named, x, strict=True):
        delta = (point.astype(np.float64) - clean[row].astype(np.float32).astype(np.float64)).ravel()
        length = np.abs(delta).max() if threat.norm == "linf" else np.linalg.norm(delta)
        assert length <= threat.radius
        assert length == pytest.approx(distances[int(row), threat.norm, threat.radius])


def same(one, other) -> None:
    for name in ("rows.csv", "examples.npz"):
        first, second = Path(one.out) / name, Path(other.out) / name
        if name.endswith("npz"):
            with np.load(first) as a, np.load(second) as b:
                assert all(np.array_equal(a[field], b[field]) for field in ("row", "threat", "x"))
        else:
            assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_other_numbers_of_processes_change_no_bit(done, uploads: Path, tmp_path: Path, processes: int) -> None:
    again = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB)
    assert isinstance(serve(again, processes), Done)
    same(done, again)


@pytest.mark.slow
def test_killed_and_taken_up_again_changes_no_bit(done, uploads: Path, tmp_path: Path) -> None:
    cut = order(tmp_path / "first", uploads / "model.pt2", uploads / "data.npz", JOB)
    shards = Path(cut.out) / "shards"
    with running(3) as runner:
        for _ in talk(runner, cut):
            if any(shards.glob("*.npz")):
                break
        os.killpg(runner.pid, signal.SIGKILL)
    again = order(tmp_path / "second", uploads / "model.pt2", uploads / "data.npz", JOB)
    shutil.copytree(shards, Path(again.out) / "shards")
    assert isinstance(serve(again), Done)
    assert report(again).provenance.resumed > 0
    same(done, again)


@pytest.mark.slow
def test_damaged_and_foreign_shards_are_done_again(done, uploads: Path, tmp_path: Path) -> None:
    shards = Path(done.out) / "shards"
    again = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB | {"seed": 1, "threats": THREATS[:1], "rows": 40})
    shutil.copytree(shards, Path(again.out) / "shards")
    assert isinstance(serve(again, processes=1), Done)
    assert report(again).provenance.resumed == 0
    same_seed = order(tmp_path / "damaged", uploads / "model.pt2", uploads / "data.npz", JOB)
    shutil.copytree(shards, Path(same_seed.out) / "shards")
    first, second = sorted((Path(same_seed.out) / "shards").iterdir())
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:1000])
    assert isinstance(serve(same_seed), Done)
    assert report(same_seed).provenance.resumed == 0
    same(done, same_seed)


@pytest.mark.slow
def test_progress_grows_to_its_total(uploads: Path, tmp_path: Path) -> None:
    given = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", {"threats": THREATS[:1], "rows": 200})
    with running() as runner:
        said = [message.progress for message in talk(runner, given) if isinstance(message, Told)]
    done = [progress.done for progress in said if progress.phase == "attack"]
    assert done == sorted(done)
    assert done[-1] == said[-1].total == 200 * 3
    assert {progress.phase for progress in said} == {"preflight", "attack", "checks", "report"}


def test_craft_leaves_a_dataset(uploads: Path, tmp_path: Path) -> None:
    job = {"kind": "craft", "threat": {"norm": "linf", "eps": 0.1}, "attack": {"kind": "pgd", "steps": 10}, "rows": 150}
    given = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", job)
    last = serve(given)
    assert isinstance(last, Done)
    assert set(last.files) == FILES | {"crafted.npz"}
    with np.load(Path(given.out) / "crafted.npz") as crafted, np.load(given.data_path) as data:
        x, y = crafted["x"], crafted["y"]
        assert np.array_equal(y, data["y"][:150])
        assert np.abs(x.astype(np.float64) - (data["x"][:150] / 255).astype(np.float32)).max() <= 0.1
    told = report(given)
    with torch.no_grad():
        predictions = load_model(Path(given.model_path), "pt2", ModelSpec()).module(torch.from_numpy(x)).argmax(1).numpy()
    assert int((predictions == y).sum()) == told.threats[0].worst.count < told.clean.count
    assert told.threats[0].each[0].backwards >= told.clean.count * 10


@pytest.mark.slow
def test_a_targeted_break_reaches_the_target_drawn_for_the_row(uploads: Path, tmp_path: Path) -> None:
    job = {"threats": [{"norm": "linf", "eps": 0.3, "targeted": True}], "attacks": [{"kind": "pgd", "steps": 20}], "rows": 100}
    given = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", job)
    assert isinstance(serve(given), Done)
    rows = torch.arange(100)
    drawn = random.integers(random.fork(random.keys(0, rows), 7), 9)
    labels = torch.from_numpy(orders.digits()[1][:100])
    targets = torch.where(drawn >= labels, drawn + 1, drawn)
    broken = [row for row in table(given) if row["broken_by"] == "pgd"]
    assert len(broken) > 10
    assert all(int(row["prediction"]) == int(targets[int(row["row"])]) != int(row["label"]) for row in broken)


@pytest.mark.slow
def test_fewer_rows_are_the_same_rows(done, uploads: Path, tmp_path: Path) -> None:
    """Another number of rows cuts and orders the shards anew; what becomes of a row does not change by a bit."""
    part = order(tmp_path, uploads / "model.pt2", uploads / "data.npz", JOB | {"rows": 130})
    assert isinstance(serve(part), Done)
    assert table(part) == [row for row in table(done) if int(row["row"]) < 130]


@pytest.mark.slow
def test_unlabelled_data_are_held_to_the_models_own_word(uploads: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=orders.digits()[0][:80])
    given = order(tmp_path, uploads / "model.pt2", tmp_path / "x.npz", {"threats": THREATS[:1]})
    assert isinstance(serve(given), Done)
    told = report(given)
    assert told.clean.count == told.clean.total == 80
    assert [found.code for found in told.warnings] == ["unlabelled"]


def test_a_refusal_is_told_with_code_and_hint(uploads: Path, tmp_path: Path) -> None:
    x, y = orders.digits()
    np.savez(tmp_path / "bad.npz", x=x[:10], y=y[:10] + 7)
    last = serve(order(tmp_path, uploads / "model.pt2", tmp_path / "bad.npz", {"threats": THREATS[:1]}))
    assert isinstance(last, Failed)
    assert (last.reason.code, last.reason.detail) == ("bad_data", "labels_out_of_range")
    assert last.reason.hint


def test_a_runner_holds_no_credentials_and_ends_with_its_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARRING_KEY", "svc_secret")
    monkeypatch.setenv("SPARRING_REDIS_URL", "redis://:secret@127.0.0.1/0")
    with running() as runner:
        environment = Path(f"/proc/{runner.pid}/environ").read_bytes()
        assert b"secret" not in environment
        assert b"SPARRING" not in environment
        runner.wire.close()
        wait_for(lambda: gone(runner.pid))


def test_a_runner_at_work_ends_with_its_wire(uploads: Path, tmp_path: Path) -> None:
    job = {"threats": THREATS[:1], "attacks": [{"kind": "pgd", "steps": 100_000}]}
    with running() as runner:
        for said in talk(runner, order(tmp_path, uploads / "model.pt2", uploads / "data.npz", job)):
            if isinstance(said, Told) and said.progress.phase == "attack":
                break
        members = [int(pid) for pid in Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()]
        assert members
        runner.wire.close()
        wait_for(lambda: all(gone(pid) for pid in [runner.pid, *members]))


def peak(pids: list[int]) -> int:
    """Bytes that the largest of these processes ever held."""
    found = [0]
    for pid in pids:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            found += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(found)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(uploads: Path, tmp_path: Path) -> None:
    """Seven thousand more rows take a kilobyte each, and shards that are four times as long what an attack holds of them."""
    images, _ = orders.digits()
    job = {"threats": [{"norm": "linf", "eps": 0.1}], "attacks": [{"kind": "fgsm"}, {"kind": "apgd", "steps": 3}]}
    peaks = []
    for rows in (1000, 8000):
        np.savez(tmp_path / f"{rows}.npz", x=images[np.arange(rows) % len(images)])
        given = order(tmp_path / str(rows), uploads / "model.pt2", tmp_path / f"{rows}.npz", job)
        most = 0
        with running(2) as runner:
            for said in talk(runner, given):
                last = said
                if isinstance(said, Told):
                    members = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
                    most = max(most, peak([runner.pid, *map(int, members)]))
        assert isinstance(last, Done)
        assert report(given).threats[0].each[0].entered == rows
        peaks.append(most)
    state = 20 * (512 - 128) * images[0].size * 4
    assert peaks[1] - peaks[0] < 7000 * 1024 + state, "of all rows an attack would hold 36 MB"

"""Shards: what counts as right and as broken, and that damaged checkpoints are done again rather than believed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workers.orders import digits, export, network, order, trained

from sparring.contract.runner import Done, Order
from sparring.contract.states import Reason
from sparring.workers import runner, shard
from sparring.workers.bench import Facts
from sparring.workers.course import attack_shard
from sparring.workers.crew import CrewError, Trouble
from sparring.workers.preflight import preflight

JOB = {"threats": [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 1.0}], "attacks": [{"kind": "noise"}, {"kind": "pgd", "steps": 5}]}


def attacked(folder: Path, model: nn.Module, rows: int = 80) -> tuple[shard.Shard, np.ndarray]:
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:rows], y=y[:rows])
    given = order(folder, export(model.eval(), folder / "model.pt2"), folder / "data.npz", JOB)
    _, bench = preflight(given, torch.device("cpu"), 64)
    return attack_shard(given.job, bench, np.arange(rows), lambda more: None), y[:rows]


def test_a_model_that_always_says_the_same_is_right_on_that_class_only(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    done, labels = attacked(tmp_path, model)
    assert int((done.clean == labels).sum()) == int((labels == 0).sum()) < 20
    for ended in done.ended:
        assert all(tally.refused == 0 for tally in ended.tallies)
        assert ((ended.broken_by == shard.CLEAN) == (labels != 0)).all()


def test_rows_on_which_the_model_answers_nan_are_errors_and_are_counted(tmp_path: Path) -> None:
    class Standardising(nn.Module):
        """0 / 0 on a blank row."""

        def __init__(self) -> None:
            super().__init__()
            self.model = trained(network(), 2)

        def forward(self, x: Tensor) -> Tensor:
            spread = (x - x.mean((1, 2, 3), keepdim=True)).square().flatten(1).mean(1, keepdim=True)
            scores: Tensor = self.model(x) * (spread / spread)
            return scores

    x, y = digits()
    x = x[:400].copy()
    x[300:] = 0
    np.savez(tmp_path / "data.npz", x=x, y=y[:400])
    given = order(tmp_path, export(Standardising().eval(), tmp_path / "model.pt2"), tmp_path / "data.npz", JOB)
    _, bench = preflight(given, torch.device("cpu"), 64)
    done = attack_shard(given.job, bench, np.arange(280, 400), lambda more: None)
    assert (done.clean[20:] == -1).all()
    assert (done.clean[:20] >= 0).all()
    assert (done.ended[0].broken_by[20:] == shard.CLEAN).all()


def test_damaged_shards_are_never_believed(tmp_path: Path) -> None:
    done, _ = attacked(tmp_path, trained(network(), 1), 20)
    path = tmp_path / "00000.npz"
    shard.save(path, done, "plan")
    whole = path.read_bytes()
    again = shard.load(path, "plan")
    assert again is not None
    assert all(np.array_equal(getattr(again, name), getattr(done, name)) for name in ("rows", "labels", "clean"))
    assert shard.load(path, "another plan") is None
    generator = np.random.default_rng(0)
    for at in generator.integers(0, len(whole), 400):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << int(generator.integers(8))
        path.write_bytes(spoiled)
        read = shard.load(path, "plan")  # a bit of the zip's own padding or dates may not matter
        if read is not None:
            assert all(
                np.array_equal(getattr(one, name), getattr(other, name))
                for one, other in zip(read.ended, done.ended, strict=True)
                for name in ("broken_by", "prediction", "distance", "queries", "witness")
            )
            assert json.dumps([ended.tallies for ended in read.ended]) == json.dumps([ended.tallies for ended in done.ended])
    path.write_bytes(whole[: len(whole) // 2])
    assert shard.load(path, "plan") is None


def facts(**other: object) -> Facts:
    given = dict.fromkeys(Facts._fields) | {"rows": 5000, "shape": (5000, 3, 32, 32), "device": "cpu", "probabilities": False}
    return Facts(**given | other)  # type: ignore[arg-type]


@pytest.fixture
def asked(tmp_path: Path) -> Order:
    for name in ("model", "data"):
        (tmp_path / name).write_bytes(b"")
    return order(tmp_path, tmp_path / "model", tmp_path / "data", JOB)


def test_shards_cover_every_row_once_and_keep_all_processes_busy_to_the_end() -> None:
    rows = np.random.default_rng(0).permutation(5000)
    for processes in (1, 2, 3, 8, 200):
        shards = runner.cut(rows, 3072, 64, 64, processes)
        assert np.array_equal(np.concatenate(shards), rows)
        assert all(len(part) % 64 == 0 for part in shards[:-1])
        assert max(map(len, shards)) <= 1024
        assert len(shards) % processes == 0 or len(shards) == -(-5000 // 64)
    assert runner.cut(rows[:0], 3072, 64, 16, 2) == []


@pytest.mark.parametrize(("rows", "sizes"), [(16, [16]), (40, [32, 8]), (48, [32, 16]), (100, [64, 36]), (640, [320, 320])])
def test_few_rows_too_are_spread_over_the_processes(rows: int, sizes: list[int]) -> None:
    assert [len(part) for part in runner.cut(np.arange(rows), 784, 64, 16, 2)] == sizes


def test_a_shard_belongs_to_what_it_was_made_for(asked: Order) -> None:
    one = runner.digest(asked, facts(), 64)
    assert runner.digest(asked, facts(), 64) == one
    others = [
        runner.digest(asked, facts(device="H100"), 64),
        runner.digest(asked, facts(probabilities=True), 64),
        runner.digest(asked, facts(training=7), 64),
        runner.digest(asked, facts(), 32),
    ]
    assert len({one, *others}) == 5


def test_large_rows_make_small_shards() -> None:
    sizes = [len(runner.cut(np.arange(50_000), 3 * side * side, 64, 16, 1)[0]) for side in (32, 64, 128, 224)]
    assert sizes == [1024, 320, 64, 64]


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_when_memory_runs_out_the_tile_is_halved_down_to_16(asked: Order, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    tiles: list[int] = []

    class Crew:
        def __init__(self, *given: object) -> None: ...

        def look(self, tile: int) -> Facts:
            tiles.append(tile)
            if len(tiles) <= failures:
                raise CrewError(Trouble(Reason(code="out_of_memory", message="no memory"), memory=True))
            return facts()

        def dismiss(self) -> None: ...

    monkeypatch.setattr(runner, "Crew", Crew)
    monkeypatch.setattr(runner, "_listen", lambda wire, desk: None)
    monkeypatch.setattr(runner, "_attack", lambda *given: runner._Fought([], "", 0))
    monkeypatch.setattr(runner, "_doubt", lambda *given: None)
    monkeypatch.setattr(runner.assemble, "Results", lambda *given: None)
    monkeypatch.setattr(runner.assemble, "write", lambda *given: ("report.json",))
    monkeypatch.setattr(runner, "send", lambda wire, message: None)
    if failures < 3:
        assert runner.serve(asked, None, "cpu", 2) == Done(files=("report.json",))  # type: ignore[arg-type]
    else:
        with pytest.raises(CrewError):
            runner.serve(asked, None, "cpu", 2)  # type: ignore[arg-type]
    assert tiles == [64, 32, 16][: failures + 1]


def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu_unasked() -> None:
    assert runner.resolve("auto", "cpu") == runner.resolve("cpu", "cuda:1") == "cpu"
    with pytest.raises(CrewError) as refused:
        runner.resolve("gpu", "cpu")
    assert refused.value.trouble.reason.code == "unsupported"

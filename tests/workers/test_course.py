"""One shard through many threats and attacks: what the smaller eps leaves to the larger, and one attack to the next."""

import csv
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workers.orders import digits, export, network, order, report, running, serve, talk, trained

from sparring.contract.runner import Done, Order
from sparring.workers.bench import Bench
from sparring.workers.course import attack_shard
from sparring.workers.preflight import preflight
from sparring.workers.shard import CLEAN, UNBROKEN, Shard

ROWS, ALL = 120, 260
EPS = (0.02, 0.05, 0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:ALL], y=y[:ALL])
    export(trained(network()), folder / "model.pt2")
    return folder


STANDARD = [
    {"kind": "apgd", "steps": 12},
    {"kind": "apgd", "steps": 8, "loss": "dlr", "targets": 3},
    {"kind": "fab", "steps": 6, "targets": 3},
    {"kind": "square", "queries": 30},
]
"""The suite standard, with settings that take seconds."""
BRIEF = {"threats": [{"norm": "linf", "eps": each} for each in (0.04, 0.07)], "attacks": STANDARD, "cascade": True}


class Row(NamedTuple):
    """What became of a row under one threat, to the bit."""

    broken_by: int
    prediction: int
    distance: float
    queries: int
    x: bytes


def rows_of(done: Shard) -> dict[tuple[int, int], Row]:
    """By row and threat."""
    found = {}
    for threat, ended in enumerate(done.ended):
        witness = iter(ended.witness)
        for at, row in enumerate(done.rows.tolist()):
            x = next(witness).tobytes() if ended.broken_by[at] != UNBROKEN else b""
            values = (ended.broken_by[at], ended.prediction[at], ended.distance[at], ended.queries[at])
            found[row, threat] = Row(*(value.item() for value in values), x)
        assert next(witness, None) is None
    return found


def bench_of(folder: Path, job: dict[str, object], tile: int = 64) -> tuple[Order, Bench]:
    given = order(folder, folder / "model.pt2", folder / "data.npz", job)
    return given, preflight(given, torch.device("cpu"), tile)[1]


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[tuple[int, int], Row]:
    """All rows in one shard, in their order."""
    given, bench = bench_of(folder, BRIEF)
    done = rows_of(attack_shard(given.job, bench, np.arange(ALL), lambda more: None))
    assert len({row.broken_by for row in done.values()}) >= 4, "clean errors, survivors, and the work of several attacks"
    return done


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 3], ids=["backwards", "shuffled in three shards"])
def test_neither_order_nor_shards_change_a_bit(folder: Path, whole: dict[tuple[int, int], Row], shards: int) -> None:
    given, bench = bench_of(folder, BRIEF)
    rows = np.arange(ALL)[::-1] if shards == 1 else np.random.default_rng(5).permutation(ALL)
    parts = [np.ascontiguousarray(part) for part in np.array_split(rows, shards)]
    found = [rows_of(attack_shard(given.job, bench, part, lambda more: None)) for part in parts]
    assert {key: row for each in found for key, row in each.items()} == whole


def test_shorter_passes_change_no_bit(folder: Path, whole: dict[tuple[int, int], Row]) -> None:
    given, bench = bench_of(folder, BRIEF)
    assert bench.target.granule < bench.target.tile
    bench.target.granule = bench.target.tile
    assert rows_of(attack_shard(given.job, bench, np.arange(ALL), lambda more: None)) == whole


@pytest.mark.parametrize("tile", [32, pytest.param(256, marks=pytest.mark.slow)])
def test_between_tiles_hardly_a_verdict_differs(folder: Path, whole: dict[tuple[int, int], Row], tile: int) -> None:
    given, bench = bench_of(folder, BRIEF, tile)
    other = rows_of(attack_shard(given.job, bench, np.arange(ALL), lambda more: None))
    differing = [key for key, row in whole.items() if (row.broken_by == UNBROKEN) != (other[key].broken_by == UNBROKEN)]
    assert len(differing) <= 0.005 * len(whole), f"(row, threat): {differing}"


def table(given: Order) -> dict[tuple[int, int], tuple[str, ...]]:
    """What a finished job's files say of each row and threat; x' in bytes where there is one."""
    with np.load(Path(given.out) / "examples.npz") as file:
        x = {(int(row), int(threat)): point.tobytes() for row, threat, point in zip(file["row"], file["threat"], file["x"], strict=True)}
    with (Path(given.out) / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    eps = [float(threat["eps"]) for threat in BRIEF["threats"]]
    found = {}
    for line in lines:
        key = int(line["row"]), eps.index(float(line["eps"]))
        found[key] = (*(line[name] for name in ("broken_by", "prediction", "queries")), x.get(key, b""))
    return found


def runner_job(folder: Path, out: Path) -> Order:
    return order(out, folder / "model.pt2", folder / "data.npz", BRIEF)


def agrees(given: Order, whole: dict[tuple[int, int], Row]) -> None:
    """The files of a runner say of every row what this process found."""
    names = {CLEAN: "clean", UNBROKEN: "", **dict(enumerate(("apgd", "apgd-2", "fab", "square")))}
    assert table(given) == {key: (names[row.broken_by], str(row.prediction), str(row.queries), row.x) for key, row in whole.items()}


@pytest.mark.slow
def test_after_a_kill_another_number_of_processes_ends_with_the_same_bits(
    folder: Path, whole: dict[tuple[int, int], Row], tmp_path: Path
) -> None:
    """Four row processes are killed in the middle; one goes on."""
    cut = runner_job(folder, tmp_path / "first")
    shards = Path(cut.out) / "shards"
    with running(4) as runner:
        for _ in talk(runner, cut):
            if any(shards.glob("*.npz")):
                break
        os.killpg(runner.pid, signal.SIGKILL)
    again = runner_job(folder, tmp_path / "second")
    shutil.copytree(shards, Path(again.out) / "shards")
    assert isinstance(serve(again, 1), Done)
    assert report(again).provenance.resumed > 0
    agrees(again, whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_ends_with_the_same_bits(
    folder: Path, whole: dict[tuple[int, int], Row], tmp_path: Path, processes: int
) -> None:
    given = runner_job(folder, tmp_path)
    assert isinstance(serve(given, processes), Done)
    agrees(given, whole)


def attacked(folder: Path, job: dict[str, object], eps: tuple[float, ...] = EPS, norm: str = "linf", **more: object) -> Shard:
    job = {"threats": [{"norm": norm, "eps": each} for each in eps], "attacks": job, **more}
    given = order(folder, folder / "model.pt2", folder / "data.npz", job)
    _, bench = preflight(given, torch.device("cpu"), 64)
    return attack_shard(given.job, bench, np.arange(ROWS), lambda more: None)


PAIR = [{"kind": "fgsm"}, {"kind": "apgd", "steps": 15}, {"kind": "square", "queries": 40}]


def test_a_row_broken_at_a_small_eps_is_broken_at_a_larger_one_and_not_tried_again(folder: Path) -> None:
    done = attacked(folder, PAIR)
    for smaller, larger in zip(done.ended, done.ended[1:], strict=False):
        assert ((smaller.broken_by == UNBROKEN) | (larger.broken_by != UNBROKEN)).all()
        for before, after in zip(smaller.tallies, larger.tallies, strict=True):
            assert after.carried == before.carried + before.broken
            assert after.entered == before.entered - before.broken
            assert after.left == after.entered - after.broken
    alone = attacked(folder, PAIR, eps=EPS[-1:])
    assert int((alone.ended[0].broken_by == UNBROKEN).sum()) >= int((done.ended[-1].broken_by == UNBROKEN).sum())
    assert (done.ended[-1].distance <= EPS[-1]).all()
    assert done.ended[-1].tallies[1].carried > 0


def test_the_order_in_which_eps_are_listed_changes_nothing(folder: Path) -> None:
    rising, falling = attacked(folder, PAIR), attacked(folder, PAIR, eps=EPS[::-1])
    for one, other in zip(rising.ended, falling.ended[::-1], strict=True):
        assert np.array_equal(one.broken_by, other.broken_by)
        assert np.array_equal(one.witness, other.witness)
        assert np.array_equal(one.queries, other.queries)


def test_a_cascade_finds_the_same_worst_case_with_fewer_queries(folder: Path) -> None:
    each, cascade = attacked(folder, PAIR, eps=EPS[-1:]), attacked(folder, PAIR, eps=EPS[-1:], cascade=True)
    assert np.array_equal(each.ended[0].broken_by, cascade.ended[0].broken_by)
    assert np.array_equal(each.ended[0].witness, cascade.ended[0].witness)
    assert int(cascade.ended[0].queries.sum()) < int(each.ended[0].queries.sum())
    left = int((cascade.clean == cascade.labels).sum())
    for tally in cascade.ended[0].tallies:
        assert tally.entered == left
        left -= tally.broken
        assert (tally.left, tally.first) == (left, tally.broken)


def test_in_a_cascade_what_fell_at_a_smaller_eps_is_given_up_at_once(folder: Path) -> None:
    done = attacked(folder, PAIR, cascade=True)
    for smaller, larger in zip(done.ended, done.ended[1:], strict=False):
        fallen = smaller.broken_by >= 0
        assert np.array_equal(larger.broken_by[fallen], smaller.broken_by[fallen])
        assert (larger.queries[fallen] == 0).all()
        assert larger.tallies[0].entered == int((smaller.broken_by == UNBROKEN).sum())
    for ended in done.ended:
        left = int((done.clean == done.labels).sum())
        for tally in ended.tallies:
            left -= tally.first
            assert tally.left == left


@pytest.mark.parametrize("kind", ["fmn", "fab", "ddn"])
def test_one_run_of_a_minimal_attack_serves_every_eps(folder: Path, kind: str) -> None:
    eps = (0.3, 0.6, 1.2)
    done = attacked(folder, [{"kind": kind, "steps": 25}], eps=eps, norm="l2")
    reach = done.ended[0].reach[:, 0]
    right = done.clean == done.labels
    assert (reach[~right] == 0).all()
    assert np.isfinite(reach[right]).mean() > 0.9
    for radius, ended in zip(eps, done.ended, strict=True):
        assert np.array_equal(ended.reach[:, 0], reach)
        assert np.array_equal(ended.broken_by == 0, right & (reach <= radius))
        assert ((ended.broken_by == CLEAN) == ~right).all()
    assert done.ended[0].tallies[0].queries > 0
    assert [ended.tallies[0].queries for ended in done.ended[1:]] == [0, 0]


def test_the_queries_at_a_success_are_told_row_by_row(folder: Path) -> None:
    done = attacked(folder, [{"kind": "square", "queries": 60}], eps=(0.1,)).ended[0]
    broken = done.broken_by == 0
    assert np.array_equal(done.fell[:, 0] > 0, broken)
    assert np.array_equal(done.fell[broken, 0], done.queries[broken])
    assert 0 < done.fell[broken, 0].min() < done.fell[broken, 0].max() <= 63
    course = attacked(folder, [{"kind": "fmn", "steps": 10}], norm="l2", eps=(1.0,)).ended[0]
    assert not course.fell.any(), "an attack that was not stopped has no queries at a success"


def test_walks_toward_a_class_begin_at_a_row_of_that_class(folder: Path) -> None:
    threats = [{"norm": "l2", "eps": 8.0, "targeted": True}]
    job = {"threats": threats, "attacks": [{"kind": "hopskipjump", "queries": 12, "starts": 1}]}
    given = order(folder, folder / "model.pt2", folder / "data.npz", job)
    _, bench = preflight(given, torch.device("cpu"), 64)
    ended = attack_shard(given.job, bench, np.arange(ROWS), lambda more: None).ended[0]
    assert (ended.broken_by == 0).mean() > 0.8
    bench.data = replace(bench.data, labels=None)
    blind = attack_shard(given.job, bench, np.arange(ROWS), lambda more: None).ended[0]
    assert (blind.broken_by == 0).mean() < 0.7


def test_vat_measures_how_far_the_prediction_moves(folder: Path) -> None:
    done = attacked(folder, [{"kind": "vat"}], norm="l2", eps=(0.1, 0.5))
    near, far = (ended.tallies[0].divergence for ended in done.ended)
    assert 0 < near < far


class Broken(nn.Module):
    """Whoever asks it is found out."""

    def forward(self, rows: Tensor) -> Tensor:
        raise AssertionError("asked for a slope")


def test_the_smallest_change_is_never_looked_for_in_few_digits(folder: Path) -> None:
    job = {"threats": [{"norm": "l2", "eps": 0.5}], "attacks": [{"kind": kind, "steps": 3} for kind in ("fab", "fmn", "deepfool")]}
    for more in ({}, {"cascade": True}):
        given = order(folder, folder / "model.pt2", folder / "data.npz", job | more)
        _, bench = preflight(given, torch.device("cpu"), 64)
        plain = attack_shard(given.job, bench, np.arange(20), lambda more: None)
        bench.target.climber = Broken()
        hurried = attack_shard(given.job, bench, np.arange(20), lambda more: None)
        assert np.array_equal(plain.ended[0].witness, hurried.ended[0].witness)
        assert [a.queries for a in plain.ended[0].tallies] == [a.queries for a in hurried.ended[0].tallies]
        assert [a.backwards for a in plain.ended[0].tallies] == [a.backwards for a in hurried.ended[0].tallies]
        with pytest.raises(AssertionError, match="asked for a slope"):
            bench.target.slope(lambda logits: logits[:, 0], bench.rows(torch.arange(3)))

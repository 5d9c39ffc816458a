"""Evaluations that end early: after the same row whatever the order in which blocks are done, the number of processes, or a kill."""

import random
from pathlib import Path

import numpy as np
import pytest
from workers.orders import order, report, running, serve, talk

from sparring.contract.early import Early, packed
from sparring.contract.runner import Done
from sparring.workers.early import Docket, blocks
from sparring.workers.shard import CLEAN, UNBROKEN, Ended, Shard
from workers import orders

OTHER, MODEL = "c" * 64, "d" * 64


def shard(rows, stood) -> Shard:
    """Of rows that are right, of which these stand under the one threat."""
    rows = np.asarray(rows, dtype=np.int64)
    fell = np.where(np.asarray(stood, dtype=bool), UNBROKEN, 0).astype(np.int16)
    none = np.zeros(len(rows))
    ended = Ended(fell, none, none, none, none, none, none, none, none, ())
    return Shard(rows, none, np.where(fell == CLEAN, 1, none), (ended,), none)


def parts(stood, tile: int = 16):
    drawn = np.random.default_rng(0).permutation(len(stood))
    return [shard(rows, np.asarray(stood)[rows]) for rows in blocks(drawn, tile, 256)]


def closed(early: Early, given, arrival, rows: int):
    docket = Docket(early, rows, len(given), MODEL)
    for at in arrival:
        docket.enter(at, given[at])
    return docket


def test_blocks_are_the_rows_in_their_order_and_grow():
    found = blocks(np.arange(5000)[::-1], 16, 256)
    assert np.concatenate(found).tolist() == list(range(4999, -1, -1))
    sizes = [len(block) for block in found]
    assert sizes[:8] == [16] * 8
    assert max(sizes) == 256
    assert all(size % 16 == 0 for size in sizes[:-1])
    assert blocks(np.arange(0), 16, 256) == []


def test_the_answer_does_not_depend_on_which_block_is_done_first():
    stood = np.random.default_rng(1).random(2000) < 0.8
    early = Early.model_validate({"questions": [{"id": "a", "threat": 0, "min": 0.7}, {"id": "b", "min": 0.9}]})
    given = parts(stood)
    expected = closed(early, given, range(len(given)), 2000)
    assert expected.closed
    assert 0 < expected.stopped().rows < 1000
    for seed in range(5):
        arrival = list(range(len(given)))
        random.Random(seed).shuffle(arrival)
        found = closed(early, given, arrival, 2000)
        assert (found.stopped(), found.counted) == (expected.stopped(), expected.counted)


def test_it_stays_open_until_rows_run_out():
    early = Early.model_validate({"questions": [{"id": "a", "threat": 0, "min": 0.5}]})
    given = parts([at % 2 == 0 for at in range(400)])
    found = closed(early, given, range(len(given) - 1), 400)
    assert not found.closed
    found.enter(len(given) - 1, given[-1])
    assert found.closed
    told = found.stopped()
    assert (told.rows, told.of, told.why) == (400, 400, "rows")
    (answer,) = told.answers
    assert (answer.word, answer.at, answer.value) == ("open", 0, 0.5)
    assert answer.low < 0.5 < answer.high


def test_not_before_as_many_rows_as_are_wanted():
    early = Early.model_validate({"questions": [{"id": "a", "threat": 0, "min": 0.1, "least": 300}]})
    found = closed(early, (given := parts([True] * 1000)), range(len(given)), 1000)
    assert 300 <= found.stopped().rows < 400
    assert found.stopped().answers[0].at == 300


@pytest.mark.parametrize(("lost", "word"), [(0.0, "holds"), (0.4, "fails")])
def test_a_drop_is_counted_row_by_row(lost: float, word: str):
    before = np.random.default_rng(2).random(3000) < 0.7
    now = before & (np.random.default_rng(3).random(3000) >= lost)
    stood = {"sha256": OTHER, "rows": 3000, "right": packed(before.tolist())}
    early = Early.model_validate({"questions": [{"id": "a", "threat": 0, "max_drop": 0.05, "before": stood}]})
    found = closed(early, (given := parts(now)), range(len(given)), 3000).stopped()
    (answer,) = found.answers
    assert answer.word == word
    assert found.rows < 1000
    assert answer.low <= answer.value <= answer.high
    seen = np.random.default_rng(0).permutation(3000)[: found.rows]
    assert answer.value == pytest.approx((before[seen].sum() - now[seen].sum()) / found.rows)


@pytest.mark.parametrize(("sha", "rows"), [(MODEL, 800), (OTHER, 799)])
def test_nobody_waits_for_what_cannot_change(sha: str, rows: int):
    """The very model of the baseline; a baseline of other rows."""
    before = {"sha256": sha, "rows": rows, "right": packed([True] * rows)}
    early = Early.model_validate({"questions": [{"id": "a", "max_drop": 0, "before": before}]})
    found = closed(early, (given := parts([True] * 800)), range(len(given)), 800).stopped()
    assert (found.rows, found.why, found.answers[0].word) == (16, "answered", "open")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    orders.export(orders.trained(orders.network(), epochs=3), folder / "model.pt2")
    x, y = orders.digits()
    np.savez(folder / "data.npz", x=x, y=y)
    return folder


JOB = {
    "threats": [{"norm": "linf", "eps": 0.02}],
    "attacks": [{"kind": "fgsm"}],
    "stop": {"kind": "early", "questions": [{"id": "a", "min": 0.7}, {"id": "b", "threat": 0, "min": 0.5}]},
}


def files(given) -> tuple[bytes, ...]:
    with np.load(Path(given.out) / "examples.npz") as examples:
        return (Path(given.out) / "rows.csv").read_bytes(), *(examples[name].tobytes() for name in ("row", "threat", "x"))


@pytest.mark.slow
def test_processes_and_kills_change_neither_the_row_it_ends_after_nor_the_report(uploads: Path, tmp_path: Path):
    one = order(tmp_path / "one", uploads / "model.pt2", uploads / "data.npz", JOB)
    assert isinstance(serve(one, 1), Done)
    told = report(one)
    assert told.stopped
    assert told.stopped.rows == told.clean.total == told.threats[0].worst.total < 1797 == told.stopped.of
    assert (told.stopped.why, [answer.word for answer in told.stopped.answers]) == ("answered", ["holds", "holds"])
    assert "ended_early" in [finding.code for finding in told.warnings]
    (attack,) = told.threats[0].each
    assert attack.entered == told.clean.count

    two = order(tmp_path / "two", uploads / "model.pt2", uploads / "data.npz", JOB)
    shards = Path(two.out) / "shards"
    with running(2) as runner:
        for _ in talk(runner, two):
            if list(shards.glob("*.npz")):
                break
    assert isinstance(serve(two, 3), Done)
    again = report(two)
    assert again.provenance.resumed >= 1
    assert (again.stopped, again.clean, again.warnings) == (told.stopped, told.clean, told.warnings)
    assert again.threats[0].worst == told.threats[0].worst
    assert files(one) == files(two)

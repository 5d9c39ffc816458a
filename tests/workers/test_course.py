"""One shard through many threats and attacks: what the smaller eps leaves to the larger, and one attack to the next."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from workers.orders import digits, export, network, order, trained

from sparring.workers.course import attack_shard
from sparring.workers.preflight import preflight
from sparring.workers.shard import CLEAN, UNBROKEN, Shard

ROWS = 120
EPS = (0.02, 0.05, 0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:ROWS], y=y[:ROWS])
    export(trained(network()), folder / "model.pt2")
    return folder


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
    assert (ended.broken_by == 0).mean() > 0.9
    bench.data = replace(bench.data, labels=None)
    blind = attack_shard(given.job, bench, np.arange(ROWS), lambda more: None).ended[0]
    assert (blind.broken_by == 0).mean() < 0.7


def test_vat_measures_how_far_the_prediction_moves(folder: Path) -> None:
    done = attacked(folder, [{"kind": "vat"}], norm="l2", eps=(0.1, 0.5))
    near, far = (ended.tallies[0].divergence for ended in done.ended)
    assert 0 < near < far

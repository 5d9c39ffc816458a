"""Replay: what broke one version of a model is shown to the next, and counts only where it breaks that one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from workers.orders import order, report, serve

from sparring.contract.runner import Done, Earlier, Order
from sparring.contract.threat import Threat
from sparring.workers.errors import Refused
from sparring.workers.past import Past
from workers import orders

LINF = Threat(norm="linf", eps=0.05)
NAME = "job_" + "a" * 20
JOB = {"threats": [{"norm": "linf", "eps": 0.15}], "rows": 128}


def kept(path: Path, row, threat, x, *, save=np.savez, threats=(LINF,)) -> Earlier:
    save(path, row=np.array(row, dtype=np.int64), threat=np.array(threat, dtype=np.int64), x=np.asarray(x, dtype=np.float32))
    return Earlier(job=NAME, threats=threats, sha256=orders.sha256(path), path=str(path))


def test_points_are_those_of_the_rows_under_the_norm(tmp_path: Path):
    l2 = Threat(norm="l2", eps=1)
    x = np.arange(8).reshape(4, 2)
    past = Past([kept(tmp_path / "e.npz", [7, 3, 3, 5], [0, 0, 1, 1], x, threats=(LINF, l2))], (2,))
    index, like = np.array([5, 3, 9, 7]), torch.full((4, 2), -1.0)
    ((there, points),) = past.known(LINF, index, like)
    assert there.tolist() == [False, True, False, True]
    assert points().tolist() == [[-1, -1], [2, 3], [-1, -1], [0, 1]]
    ((there, points),) = past.known(l2, index, like)
    assert points()[there].tolist() == [[6, 7], [4, 5]]
    assert past.known(Threat(norm="l1", eps=1), index, like) == []
    assert past.known(LINF, np.array([0, 1]), like[:2]) == []
    assert Past([kept(tmp_path / "none.npz", [], [], np.zeros((0, 2)))], (2,)).known(LINF, index, like) == []


def test_the_same_point_of_a_row_is_shown_once(tmp_path: Path):
    """Versions hand points down, and a point within a small eps lies within a larger one too."""
    further = Threat(norm="linf", eps=0.1)
    first = kept(tmp_path / "a.npz", [1, 2, 1, 2], [0, 0, 1, 1], [[1, 1], [2, 2], [1, 1], [3, 3]], threats=(LINF, further))
    second = kept(tmp_path / "b.npz", [1, 2, 3], [0, 0, 0], [[1, 1], [3, 3], [1, 1]])
    found = Past([first, second], (2,)).known(LINF, np.array([1, 2, 3]), torch.zeros(3, 2))
    assert [each.there.tolist() for each in found] == [[True, True, False], [False, True, False], [False, False, True]]
    assert [each.points()[each.there].tolist() for each in found] == [[[1, 1], [2, 2]], [[3, 3]], [[1, 1]]]


@pytest.mark.parametrize(
    ("row", "threat", "x", "save"),
    [
        ([1], [0], np.zeros((1, 3)), np.savez),
        ([1, 2], [0], np.zeros((1, 2)), np.savez),
        ([1], [0], np.zeros((1, 2)), np.savez_compressed),
        ([1], [0], np.zeros((1, 2)), lambda path, **_: path.write_bytes(b"PK nonsense")),
    ],
)
def test_a_file_that_no_evaluation_leaves_is_refused(tmp_path: Path, row, threat, x, save):
    with pytest.raises(Refused, match="cannot be read"):
        Past([kept(tmp_path / "e.npz", row, threat, x, save=save)], (2,))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("past")
    orders.export(orders.trained(orders.network(), epochs=3), folder / "old.pt2")
    orders.export(orders.trained(orders.network(), epochs=4), folder / "new.pt2")
    x, y = orders.digits()
    np.savez(folder / "data.npz", x=x[:200], y=y[:200])
    return folder


def ran(files: Path, folder: Path, model: str, *earlier: Earlier, **job) -> Order:
    given = order(folder, files / model, files / "data.npz", JOB | {"replay": [NAME] if earlier else []} | job)
    given = given.model_copy(update={"earlier": earlier})
    last = serve(given, 1)
    assert isinstance(last, Done), last
    return given


def of(given: Order) -> Earlier:
    path = Path(given.out) / "examples.npz"
    return Earlier(job=NAME, threats=given.job.threats, sha256=orders.sha256(path), path=str(path))


@pytest.fixture(scope="module")
def old(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Order:
    return ran(files, tmp_path_factory.mktemp("old"), "old.pt2", attacks=[{"kind": "pgd", "steps": 10}])


def test_what_broke_the_old_version_is_tried_first_on_the_new_one(files: Path, tmp_path: Path, old: Order):
    """What lies outside the ball of its row counts for nothing."""
    threats = [{"norm": "linf", "eps": 0.001}, *JOB["threats"]]
    new = ran(files, tmp_path, "new.pt2", of(old), attacks=[{"kind": "noise", "draws": 1}], threats=threats)
    near, far = report(new).threats
    assert near.each[0].broken == 0
    replayed, blind = far.each
    assert (replayed.name, replayed.attack.kind, replayed.attack.jobs, blind.name) == ("replay", "replay", (NAME,), "noise")
    before = report(old).threats[0].worst
    assert 0 < replayed.broken == replayed.first <= replayed.entered <= before.total - before.count
    assert replayed.broken > blind.broken
    assert replayed.queries <= 2 * replayed.entered
    with np.load(Path(new.out) / "examples.npz") as found, np.load(Path(old.out) / "examples.npz") as known:
        shown = dict(zip(known["row"].tolist(), known["x"], strict=True))
        mine = found["threat"] == 1
        rows = zip(found["row"][mine].tolist(), found["x"][mine], strict=True)
        assert sum(np.array_equal(x, shown[row]) for row, x in rows if row in shown) >= replayed.broken


@pytest.mark.slow
def test_what_breaks_nothing_any_more_counts_for_nothing(files: Path, tmp_path: Path):
    with np.load(files / "data.npz") as data:
        clean = kept(tmp_path / "clean.npz", range(128), [0] * 128, data["x"][:128] / 255)
    told = report(ran(files, tmp_path, "new.pt2", clean, attacks=[{"kind": "noise", "draws": 1}]))
    harmless = told.threats[0].each[0]
    assert (harmless.broken, harmless.entered) == (0, told.clean.count)


@pytest.mark.slow
def test_in_a_cascade_nobody_attacks_what_it_broke_and_nobody_calls_it_masking(files: Path, tmp_path: Path, old: Order):
    new = ran(files, tmp_path, "new.pt2", of(old), attacks=[{"kind": "pgd", "steps": 10}], cascade=True)
    replayed, searched = report(new).threats[0].each
    assert replayed.broken >= 3
    assert searched.entered == report(new).clean.count - replayed.broken
    assert "weaker_attacker_wins" not in [finding.code for finding in report(new).warnings]

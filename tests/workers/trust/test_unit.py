"""The unit of work: what it may spend, that it is kept and found again, and that it is the same however the rows were cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workers.orders import digits, export, order, report, serve, trained
from workers.trust.known import facts

from sparring.contract.jobs import Evaluate
from sparring.contract.runner import Done
from sparring.workers.bench import Bench
from sparring.workers.preflight import preflight
from sparring.workers.pt2.mode import in_training
from sparring.workers.shard import Ended, Tally
from sparring.workers.trust import unit
from sparring.workers.trust.seen import Effort, OfModel, UnderThreat, Whole

JOB = {"threats": [{"norm": "linf", "eps": 0.05}, {"norm": "l2", "eps": 0.5}], "attacks": [{"kind": "pgd", "steps": 5}]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:200], y=y[:200])
    export(trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), epochs=4), folder / "model.pt2")
    return folder


@pytest.fixture
def given(files: Path, tmp_path: Path):
    return order(tmp_path, files / "model.pt2", files / "data.npz", JOB)


def tally(queries: int) -> Tally:
    return Tally(0, 0, 0, 0, 0, queries, 0, 0, 0.0, 0, 0)


def ended(stands: np.ndarray, queries: int) -> Ended:
    none = np.zeros(0)
    return Ended(np.where(stands, -1, 0).astype(np.int16), none, none, none, none, none, none, none, none, (tally(queries),))


def test_a_threat_may_take_a_share_of_its_own_attacks_and_a_little_in_any_case() -> None:
    job = Evaluate(model="a" * 64, data="b" * 64, **JOB)
    right, half = np.ones(1000, np.bool_), np.arange(1000) < 500
    of_all, near, far = unit.units(job, facts(), np.arange(1000) + 7, right, [ended(half, 10), ended(right, 1_000_000)])
    assert near.budget == unit.FLOOR * 64
    assert far.budget == pytest.approx(unit.SHARE * 3 * 1_000_000)
    assert of_all.budget == pytest.approx(unit.OF_ALL * 3 * 1_000_010)
    assert (of_all.threat, near.threat, far.threat) == (None, 0, 1)
    assert near.standing.sum() == 32
    assert far.standing.all()
    assert near.rows.min() >= 7, "rows are those of the dataset"
    assert not near.searched


def test_what_costs_more_than_there_is_is_left_out(given) -> None:
    _, bench = preflight(given, torch.device("cpu"), 64)
    bench.seal = bench.fingerprint()
    rows, standing = np.arange(64), np.arange(64) < 32

    def seen(budget: float) -> UnderThreat:
        found = unit.look(given.job, bench, unit.Given(0, rows, standing, budget, searched=False))
        assert isinstance(found, UnderThreat)
        assert found.effort.forwards + 2 * found.effort.backwards <= budget
        return found

    nothing, some, everything = seen(64), seen(unit.FLOOR * 64), seen(1e9)
    assert nothing == UnderThreat(effort=nothing.effort)
    assert some.course
    assert some.tremor
    assert not some.tenfold
    assert not some.asked
    assert everything.longer
    assert everything.tenfold
    assert everything.asked
    again = seen(1e9)
    assert again.model_copy(update={"effort": everything.effort}) == everything


class Sly(nn.Module):
    """Changes when it is used, which no upload can."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.seen = body, nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        scores: Tensor = self.body(x)
        return scores


def test_a_model_that_is_not_what_it_was_is_noticed(given) -> None:
    _, bench = preflight(given, torch.device("cpu"), 64)

    def seen(bench: Bench) -> OfModel:
        found = unit.look(given.job, bench, unit.Given(None, np.arange(64), np.ones(64, np.bool_), 1e9, searched=True))
        assert isinstance(found, OfModel)
        return found

    bench.seal = bench.fingerprint()
    honest = seen(bench)
    assert (honest.changed, honest.modes) == (False, ())
    assert honest.slopes
    assert honest.scale
    assert honest.whole
    bench.target.judge = Sly(bench.target.judge).train()
    bench.seal = bench.fingerprint()
    found = seen(bench)
    assert found.changed
    assert "Sly" in found.modes


@pytest.mark.parametrize(
    ("threat", "seen"), [(None, OfModel(whole=Whole(rows=2, standing=1, eps=1.0))), (0, UnderThreat(effort=Effort(forwards=3)))]
)
def test_it_is_kept_and_found_again(tmp_path: Path, threat: int | None, seen: OfModel | UnderThreat) -> None:
    path = tmp_path / unit.name(unit.Given(threat, np.arange(0), np.arange(0) > 0, 0.0, searched=True))
    assert unit.recall(path, "plan") is None
    unit.save(path, "plan", seen)
    assert unit.recall(path, "plan") == seen
    assert unit.recall(path, "another") is None
    path.write_bytes(path.read_bytes()[:-9])
    assert unit.recall(path, "plan") is None
    with pytest.raises(OSError, match="cannot be read back"):
        unit.gather([path], "plan")


@pytest.mark.slow
def test_a_runner_checks_every_threat_and_an_attempt_that_follows_finds_it_done(given) -> None:
    assert isinstance(serve(given, processes=2), Done)
    first = report(given)
    for result in first.threats:
        assert {"gradient_absent", "model_changed", "silent_success", "not_converged"} <= {check.code for check in result.trust.checks}
        assert result.trust.level in ("unchecked", "suspect")
    assert first.cost.check_backwards > 0
    kept = {path.name: path.read_bytes() for path in (Path(given.out) / "shards").glob("checks-*.json")}
    assert set(kept) == {"checks-model.json", "checks-0.json", "checks-1.json"}
    (Path(given.out) / "shards" / "checks-1.json").unlink()
    assert isinstance(serve(given, processes=1), Done)
    again = report(given)
    assert [result.trust for result in again.threats] == [result.trust for result in first.threats]
    assert (Path(given.out) / "shards" / "checks-0.json").read_bytes() == kept["checks-0.json"]


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_that_takes_its_statistics_from_the_batch_is_named(training: bool) -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 2)).train(training)
    graph = torch.export.export(net, (torch.zeros(2, 1, 8, 8),)).graph_module
    for part in graph.modules():
        part.training = False
    assert in_training(graph) == (("batch_norm",) if training else ())
    assert in_training(nn.Sequential(nn.Dropout()).train()) == ("Sequential", "0")

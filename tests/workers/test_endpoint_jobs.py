"""Jobs on an endpoint, run by a real horse and a real runner over real HTTP, against a target that counts."""

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine
from workers.endpoints import Case, Counting, counting, linear, weights
from workers.orders import digits, wait_for

from sparring.contract.resources import JobInfo
from sparring.storage import jobs
from sparring.storage.database import migrate

TOKEN = "Bearer s3cr3t-t0ken"
ROWS = 40


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights(tmp_path_factory.mktemp("weights") / "w.npy")


@pytest.fixture
def target(tmp_path: Path, matrix: Path) -> Iterator[Counting]:
    with counting(tmp_path, matrix, latency=0.005) as one:
        yield one


@pytest.fixture
def case(sqlite_engine: Engine, tmp_path: Path, target: Counting) -> Case:
    return Case(sqlite_engine, tmp_path / "data", target.endpoint(), ROWS)


def rows(case: Case, job: str, attempt: int = 1) -> bytes:
    return (case.settings.work / job / str(attempt) / "rows.csv").read_bytes()


class Undisturbed:
    """The same job on a target that nothing happens to."""

    def __init__(self, folder: Path, matrix: Path) -> None:
        engine = create_engine(f"sqlite:///{folder / 'records.db'}")
        migrate(engine)
        with counting(folder, matrix) as target:
            case = Case(engine, folder / "data", target.endpoint(), ROWS)
            job = case.submit()
            self.report, self.rows = case.report(case.serve(job)), rows(case, job)
            self.answered, self.asked, self.sent = Counter(target.digests("answered")), target.asked, target.sent
        with np.load(case.settings.work / job / "1" / "examples.npz", allow_pickle=False) as examples:
            self.broken, self.points = examples["row"], examples["x"]
        engine.dispose()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, matrix: Path) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"), matrix)


def test_what_is_reported_is_what_the_target_counted(undisturbed: Undisturbed, matrix: Path) -> None:
    told, (x, y) = undisturbed.report, digits()
    assert (told.cost.asked, told.cost.sent) == (undisturbed.asked, undisturbed.sent)
    clean = linear(matrix, x[:ROWS].astype(np.float32) / 255).argmax(1).numpy()
    assert told.clean.count == (clean == y[:ROWS]).sum()
    assert (linear(matrix, undisturbed.points).argmax(1).numpy() != y[undisturbed.broken]).all()
    assert told.threats[0].worst.count < told.clean.count - 5
    assert told.model.format == "endpoint"
    assert told.model.spec.endpoint
    assert told.provenance.search == ("no copy: the endpoint itself is asked",)
    steadiness = 3 * 16
    assert undisturbed.asked <= told.cost.queries + steadiness, "and nothing is asked besides"


def disturbed(case: Case, job: str, when: Callable[[], bool], what: Callable[[], Any]) -> JobInfo:
    """Run the attempt, and let `what` happen as soon as `when` is true."""

    def watch() -> None:
        wait_for(when, 60)
        what()

    thread = threading.Thread(target=watch)
    thread.start()
    info = case.serve(job)
    thread.join()
    return info


@pytest.mark.slow
def test_an_endpoint_that_dies_fails_the_job_and_a_retry_repeats_no_query(case: Case, target: Counting, undisturbed: Undisturbed) -> None:
    job = case.submit()
    info = disturbed(case, job, lambda: target.asked > undisturbed.asked // 2, target.kill)
    assert info.reason
    assert (info.state, info.reason.code, info.reason.detail) == ("failed", "endpoint_failed", "unreachable")
    assert "retry the job" in info.reason.hint
    before = Counter(target.digests("answered"))
    asked = target.asked
    assert 0 < asked < undisturbed.asked
    target.start()
    jobs.retry(case.engine, "default", job)
    told = case.report(case.serve(job))
    answered = Counter(target.digests("answered"))
    assert answered - undisturbed.answered == Counter(), "nothing was answered once more than in a run without a break"
    assert before - answered == Counter()
    lost = undisturbed.answered - answered
    assert lost.total() <= 16, "answers that the dying target could not write down any more, one a connection at most"
    assert target.asked - undisturbed.asked <= 16, "only what was under way was asked again"
    assert (told.cost.asked, rows(case, job, 2)) == (undisturbed.report.cost.asked, undisturbed.rows)
    assert told.cost.sent
    assert 0 <= told.cost.sent - target.sent <= 16, "what was sent to the dying target, and it could not count any more"


@pytest.mark.slow
def test_a_runner_that_is_lost_costs_no_query_at_all(case: Case, target: Counting, undisturbed: Undisturbed) -> None:
    job = case.submit()

    def kill() -> None:
        assert case.runner
        os.killpg(case.runner.pid, signal.SIGKILL)

    info = disturbed(case, job, lambda: target.asked > undisturbed.asked // 2, kill)
    assert (info.state, info.attempt) == ("queued", 2)
    told = case.report(case.serve(job))
    assert Counter(target.digests("answered")) == undisturbed.answered
    assert (target.asked, target.sent) == (told.cost.asked, told.cost.sent) == (undisturbed.asked, undisturbed.sent)
    assert rows(case, job, 2) == undisturbed.rows


@pytest.mark.slow
def test_the_ledger_alone_is_enough_to_run_a_job_again(case: Case, target: Counting, undisturbed: Undisturbed) -> None:
    first, second = case.submit(), case.submit()
    case.report(case.serve(first))
    before = target.asked
    (case.settings.work / second).mkdir()
    (case.settings.work / second / "ledger.jsonl").write_bytes((case.settings.work / first / "ledger.jsonl").read_bytes())
    told = case.report(case.serve(second))
    assert (target.asked, told.cost.asked, rows(case, second)) == (before, undisturbed.asked, undisturbed.rows)


def test_a_budget_ends_the_job_and_is_not_passed_by_trying_again(case: Case, target: Counting) -> None:
    job = case.submit(budget={"asked": 300})
    for attempt in (1, 2):
        info = case.serve(job)
        assert info.reason
        assert (info.state, info.reason.code, info.reason.detail) == ("failed", "budget_spent", "asked")
        assert "asked = 300" in info.reason.message
        assert (target.asked, target.sent) == (300, 300), f"attempt {attempt}"
        if attempt == 1:
            jobs.retry(case.engine, "default", job)


def test_an_endpoint_that_is_not_allowed_any_more_is_not_asked(case: Case, target: Counting) -> None:
    case.allow()
    info = case.serve(case.submit())
    assert info.reason
    assert (info.state, info.reason.code, info.reason.detail) == ("failed", "target_forbidden", "not_allowed")
    assert target.sent == 0


def test_a_name_that_leads_to_this_machine_is_not_asked(sqlite_engine: Engine, tmp_path: Path, target: Counting) -> None:
    case = Case(sqlite_engine, tmp_path / "data", target.endpoint() | {"url": f"http://localhost:{target.port}/predict"})
    info = case.serve(case.submit())
    assert info.reason
    assert (info.state, info.reason.code, info.reason.detail) == ("failed", "target_forbidden", "address_forbidden")
    assert target.sent == 0


def connections(pid: int) -> list[str]:
    """Sockets of the internet that a process has."""
    inodes = {line.split()[9] for kind in ("tcp", "tcp6", "udp", "udp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]}
    found = []
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(handle.readlink())
        except OSError:
            continue
        if name.startswith("socket:[") and name[8:-1] in inodes:
            found.append(name)
    return found


@pytest.mark.slow
def test_secrets_are_sent_and_appear_nowhere_and_runners_open_no_socket(
    sqlite_engine: Engine, tmp_path: Path, target: Counting, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint = target.endpoint(headers={"Authorization": "secret:TOKEN"}, rate=400)
    case = Case(sqlite_engine, tmp_path / "data", endpoint)
    case.allow({"origin": target.origin, "secrets": {"TOKEN": TOKEN}})
    job = case.submit()
    seen: list[tuple[bytes, list[str]]] = []

    def look() -> None:
        assert case.runner
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.getpgid(pid) == case.runner.pid:
                    seen.append((Path(f"/proc/{pid}/environ").read_bytes(), connections(pid)))

    info = disturbed(case, job, lambda: target.asked > 200, look)
    assert info.state == "succeeded", info.reason
    assert all(line["headers"]["Authorization"] == TOKEN for line in target.told("asked"))
    assert len(seen) >= 5, "the runner and its row processes, in the middle of the attack"
    assert all(not opened for _, opened in seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in (case.settings.grants, target.log)]
    assert any(path.name == "records.db" for path in written)
    assert any(path.name == "report.html" for path in written)
    said = capfd.readouterr()
    for text in (info.model_dump_json().encode(), said.out.encode(), said.err.encode(), *(environ for environ, _ in seen)):
        assert TOKEN.encode() not in text
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


def test_a_suite_is_run_as_far_as_labels_go(sqlite_engine: Engine, tmp_path: Path, target: Counting, matrix: Path) -> None:
    case = Case(sqlite_engine, tmp_path / "data", target.endpoint("/labels", gives="labels"), ROWS, classes=10)
    job = case.submit(attacks=[], suite="quick", threats=[{"norm": "linf", "eps": 0.3}])
    told = case.report(case.serve(job))
    assert [found.code for found in told.warnings] == ["label_access_only", "attacks_left_out"]
    assert "gradient or scores" in told.warnings[1].message
    assert [each.name for each in told.threats[0].each] == ["noise"]
    with np.load(case.settings.work / job / "1" / "examples.npz", allow_pickle=False) as examples:
        assert (linear(matrix, examples["x"]).argmax(1).numpy() != digits()[1][examples["row"]]).all()

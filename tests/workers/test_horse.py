"""A horse with a runner that the test plays: what it says is on the wire before the horse listens, its files lie where it would write."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from reports.factory import report
from sqlalchemy import Engine, text

from sparring.contract.jobs import JOB
from sparring.contract.resources import JobInfo
from sparring.contract.runner import Done, Failed, Told
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.states import Progress, Reason
from sparring.storage import artifacts, attempts, events, jobs, uploads
from sparring.storage.artifacts import Folder, Writer
from sparring.storage.settings import Settings
from sparring.workers.horse import REQUIRED, Attempt
from sparring.workers.spare import Runner
from sparring.workers.wire import MAX_LINE, send

LEASE = 60.0
MODEL, DATA = b"model" * 20, b"data" * 20
LOST = Reason(code="worker_lost", message="gone")


class Slow(Folder):
    """A folder on which every piece takes its time: `each()` is called before a piece is read or written."""

    each: Callable[[], None]

    def open(self, sha256: str) -> Any:
        slow = self

        class File(BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                slow.each()
                return super().read(size)

        with super().open(sha256) as file:
            return File(file.read())

    def writer(self, *, limit: int | None = None) -> Writer:
        slow = self

        class SlowWriter(Writer):
            def write(self, chunk: bytes) -> None:
                slow.each()
                super().write(chunk)

        return SlowWriter(self, limit)


class Case:
    """One queued job, its blobs, and the end of the wire that is the runner's."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.folder = Slow(settings.artifacts)
        self.folder.each = lambda: None
        model = uploads.add_model(
            engine, project="default", name="m", blob=Folder(settings.artifacts).put([MODEL]), format="pt2", spec=ModelSpec()
        )
        data = uploads.add_dataset(
            engine, project="default", name="d", blob=Folder(settings.artifacts).put([DATA]), format="npz", spec=DataSpec()
        )
        wanted = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": 0.1}], "timeout": 300}
        self.job = jobs.accept(engine, JOB.validate_python(wanted))[0].id
        self.out = settings.work / self.job / "1"
        ours, self.wire = socket.socketpair()
        self.runner = Runner(subprocess.Popen(["sleep", "600"], start_new_session=True), ours)

    def leave_files(self, names: frozenset[str] = REQUIRED) -> None:
        """What a runner that is done has left, and said."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.out / name).write_text(name * 100)
        (self.out / "report.json").write_text(report().model_dump_json())
        send(self.wire, Told(progress=Progress(phase="report", done=5, total=5)))
        send(self.wire, Done(files=tuple(names)))

    def serve(self, attempt: int = 1) -> JobInfo:
        """Claim and serve one attempt; the runner is gone afterwards whatever came of it."""
        claim = attempts.claim(self.engine, self.job, attempt, worker="w", lease=LEASE)
        assert claim
        Attempt(self.settings, self.engine, claim, self.runner, self.folder).serve()
        assert self.runner.process.poll() is not None
        return self.info()

    def info(self) -> JobInfo:
        return jobs.get(self.engine, "default", self.job)

    def hold_up(self, what: Callable[[], Any], at: int = 3) -> list[int]:
        """Let `what` happen before the piece with that number; returns the pieces that were read or written."""
        pieces: list[int] = []

        def each() -> None:
            pieces.append(len(pieces))
            if len(pieces) == at:
                what()

        self.folder.each = each
        return pieces

    def slow_down(self) -> list[int]:
        """Every piece takes two fifths of the lease: without beats it would soon run out. Returns the pieces read or written."""
        pieces: list[int] = []

        def each() -> None:
            self.age("lease", LEASE * 2 / 5)
            assert attempts.expired(self.engine) == []
            pieces.append(len(pieces))

        self.folder.each = each
        return pieces

    def age(self, column: str, seconds: float) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE jobs SET {column} = {column} - {seconds}"))


@pytest.fixture
def case(sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.setattr(artifacts, "CHUNK", 10)
    case = Case(sqlite_engine, Settings(data=tmp_path, lease=LEASE, beat=1e-6))
    yield case
    case.runner.kill()
    case.wire.close()


def ended(info: JobInfo) -> tuple[str, str]:
    assert info.reason
    assert info.reason.hint
    return info.state, info.reason.code


def again(case: Case, info: JobInfo) -> Reason:
    """The reason for which the next attempt was queued, at once."""
    assert (info.state, info.attempt, info.artifacts) == ("queued", 2, ())
    reason = events.list_events(case.engine, "default", case.job)[-1].reason
    assert reason
    assert (reason.code, bool(reason.hint)) == ("worker_lost", True)
    return reason


def test_a_runner_that_is_done_ends_the_job_with_its_files(case: Case) -> None:
    case.leave_files()
    info = case.serve()
    assert (info.state, info.progress.phase, info.progress.done) == ("succeeded", "done", 5)
    assert {file.name for file in info.artifacts} == REQUIRED
    for file in info.artifacts:
        assert file.sha256 == sha256((case.out / file.name).read_bytes()).hexdigest()


def test_the_lease_is_held_however_long_reading_and_storing_take(case: Case) -> None:
    case.leave_files()
    pieces = case.slow_down()
    assert case.serve().state == "succeeded"
    assert len(pieces) > 100


def test_what_is_stored_already_is_compared_without_losing_the_lease(case: Case) -> None:
    case.leave_files()
    for name in REQUIRED:
        Folder(case.settings.artifacts).put([(case.out / name).read_bytes()])
    pieces = case.slow_down()
    assert case.serve().state == "succeeded"
    assert len(pieces) > 200


def storing(case: Case) -> int:
    """Number of a piece that is stored, not read."""
    return (len(MODEL) + len(DATA)) // 10 + 10


@pytest.mark.parametrize("where", [lambda case: 3, storing], ids=["verifying", "storing"])
def test_cancelling_is_obeyed(case: Case, where: Callable[[Case], int]) -> None:
    case.leave_files()
    pieces = case.hold_up(lambda: jobs.cancel(case.engine, "default", case.job), where(case))
    info = case.serve()
    assert ended(info) == ("cancelled", "cancelled_by_user")
    assert info.artifacts == ()
    assert len(pieces) == where(case)


@pytest.mark.parametrize("where", [lambda case: 3, storing], ids=["verifying", "storing"])
def test_the_limit_is_obeyed(case: Case, where: Callable[[Case], int], monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.monotonic
    case.leave_files()
    pieces = case.hold_up(lambda: monkeypatch.setattr(time, "monotonic", lambda: real() + 301), where(case))
    info = case.serve()
    assert ended(info) == ("timed_out", "timeout")
    assert info.artifacts == ()
    assert len(pieces) == where(case)


@pytest.mark.parametrize("where", [lambda case: 3, storing], ids=["verifying", "storing"])
def test_a_horse_that_lost_its_attempt_touches_nothing(case: Case, where: Callable[[Case], int]) -> None:
    case.leave_files()
    pieces = case.hold_up(lambda: attempts.release(case.engine, case.job, 1, reason=LOST, max_attempts=5), where(case))
    info = case.serve()
    assert (info.state, info.attempt, info.artifacts) == ("queued", 2, ())
    assert len(pieces) == where(case)


def test_what_earlier_attempts_ran_counts(case: Case) -> None:
    attempts.claim(case.engine, case.job, 1, worker="w", lease=LEASE)
    case.age("started", 301)
    attempts.release(case.engine, case.job, 1, reason=LOST, max_attempts=5)
    pieces = case.hold_up(lambda: None)
    assert ended(case.serve(attempt=2)) == ("timed_out", "timeout")
    assert pieces == []


def test_a_spare_that_died_before_the_order_is_replaced_at_once(case: Case) -> None:
    case.wire.close()
    assert "before it was given the job" in again(case, case.serve()).message


def test_a_runner_that_ends_without_a_word_is_replaced_at_once(case: Case) -> None:
    case.wire.shutdown(socket.SHUT_WR)
    assert "without a word" in again(case, case.serve()).message


@pytest.mark.parametrize("nonsense", [b"hello\n", b'{"kind": "done"}\n', b'{"kind": "order"}\n', b"\xff\n"])
def test_a_runner_that_talks_nonsense_is_replaced_at_once(case: Case, nonsense: bytes) -> None:
    case.wire.sendall(nonsense)
    assert "no sense" in again(case, case.serve()).message


def test_a_line_without_end_is_nonsense(case: Case) -> None:
    command = ["head", "-c", str(MAX_LINE + 2), "/dev/zero"]
    with subprocess.Popen(command, stdout=case.wire.fileno()):
        assert "no sense" in again(case, case.serve()).message


def test_what_the_runner_gives_as_its_reason_is_told(case: Case) -> None:
    reason = Reason(code="bad_model", message="It has no rows.", hint="Give it some.")
    send(case.wire, Failed(reason=reason))
    info = case.serve()
    assert (info.state, info.reason) == ("failed", reason)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unlike_a_report(path: Path) -> None:
    path.write_text(json.dumps({"schema": 1}))


@pytest.mark.parametrize("name", ["rows.csv", "report.json"])
@pytest.mark.parametrize("harm", [link, pipe, folder, Path.unlink])
def test_only_files_of_its_own_are_taken_from_a_runner(case: Case, name: str, harm: Callable[[Path], None]) -> None:
    case.leave_files()
    harm(case.out / name)
    info = case.serve()
    assert ended(info) == ("failed", "internal")
    assert info.artifacts == ()
    assert str(case.out) not in repr(info.reason)


def test_a_report_that_is_none_is_not_kept(case: Case) -> None:
    case.leave_files()
    unlike_a_report(case.out / "report.json")
    assert ended(case.serve()) == ("failed", "internal")


def test_all_files_must_be_there(case: Case) -> None:
    case.leave_files(REQUIRED - {"rows.parquet", "examples.npz"})
    info = case.serve()
    assert ended(info) == ("failed", "internal")
    assert info.reason
    assert info.reason.detail.endswith("examples.npz, rows.parquet")


def test_trouble_with_files_is_told_without_their_place(case: Case) -> None:
    case.settings.work.write_text("not a folder")
    info = case.serve()
    assert ended(info) == ("failed", "internal")
    assert str(case.settings.data) not in repr(info.reason)


def test_a_damaged_upload_is_told(case: Case) -> None:
    path = case.folder.local_path(sha256(DATA).hexdigest())
    path.chmod(0o600)
    path.write_bytes(b"other")
    assert ended(case.serve()) == ("failed", "artifact_corrupt")

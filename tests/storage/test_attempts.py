import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from sparring.contract.jobs import Job
from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.contract.states import Progress, Reason
from sparring.storage import attempts, events, jobs, outbox
from sparring.storage.artifacts import Blob

LOST = Reason(code="worker_lost", message="gone")
REPORT = {"report.json": Blob("a" * 64, 10), "rows.parquet": Blob("b" * 64, 20)}


def state(engine: Engine, id: str) -> str:
    return jobs.get(engine, "default", id).state


def test_a_claim_carries_all_that_the_worker_needs(engine: Engine, queued: JobInfo, job: Job, model: ModelInfo, data: DatasetInfo) -> None:
    claim = attempts.claim(engine, queued.id, 1, worker="w", lease=60)
    assert claim
    assert claim._replace(ran=0) == attempts.Claim(queued.id, 1, "default", job, model, data, {}, 0)
    assert 0 <= claim.ran < 60
    info = jobs.get(engine, "default", queued.id)
    assert info.state == "running"
    assert info.started is not None
    assert outbox.pending(engine) == outbox.stale(engine, -60) == []


def test_a_message_that_is_late_doubled_or_wrong_claims_nothing(engine: Engine, queued: JobInfo) -> None:
    for id, attempt in ((queued.id, 0), (queued.id, 2), ("job_00000000000000000000", 1)):
        assert attempts.claim(engine, id, attempt, worker="w", lease=60) is None
    assert attempts.claim(engine, queued.id, 1, worker="w", lease=60)
    assert attempts.claim(engine, queued.id, 1, worker="w", lease=60) is None


def test_of_many_workers_one_gets_it(engine: Engine, queued: JobInfo) -> None:
    with ThreadPoolExecutor(10) as pool:
        claims = list(pool.map(lambda name: attempts.claim(engine, queued.id, 1, worker=str(name), lease=60), range(10)))
    assert sum(claim is not None for claim in claims) == 1


def test_a_job_ends_with_its_files_or_not_at_all(engine: Engine, running: JobInfo) -> None:
    assert attempts.finish(engine, running.id, 1, state="succeeded", files=REPORT)
    info = jobs.get(engine, "default", running.id)
    assert info.state == "succeeded"
    assert [(file.name, file.sha256, file.size, file.media_type) for file in info.artifacts] == [
        ("report.json", "a" * 64, 10, "application/json"),
        ("rows.parquet", "b" * 64, 20, "application/vnd.apache.parquet"),
    ]
    assert not attempts.finish(engine, running.id, 1, state="failed", reason=LOST, files={"late": Blob("c" * 64, 1)})
    assert jobs.get(engine, "default", running.id) == info


def test_a_job_does_not_end_as_queued(engine: Engine, running: JobInfo) -> None:
    with pytest.raises(ValueError, match="queued"):
        attempts.finish(engine, running.id, 1, state="queued")


def test_a_worker_from_the_dead_changes_nothing(engine: Engine, running: JobInfo) -> None:
    assert attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5)
    assert attempts.claim(engine, running.id, 2, worker="next", lease=60)
    before = jobs.get(engine, "default", running.id), events.list_events(engine, "default", running.id)
    assert attempts.beat(engine, running.id, 1, lease=60, progress=Progress(done=9, total=9)) == "fenced"
    assert not attempts.finish(engine, running.id, 1, state="succeeded", files=REPORT)
    assert not attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5)
    assert (jobs.get(engine, "default", running.id), events.list_events(engine, "default", running.id)) == before
    assert attempts.finish(engine, running.id, 2, state="succeeded", files=REPORT)


def test_a_lease_that_has_run_out_ends_nothing_but_can_be_renewed(engine: Engine, running: JobInfo, age: Callable[..., None]) -> None:
    assert attempts.expired(engine) == []
    age("jobs", "lease", 100)
    assert attempts.expired(engine) == [(running.id, 1)]
    assert not attempts.finish(engine, running.id, 1, state="succeeded", files=REPORT)
    assert attempts.beat(engine, running.id, 1, lease=60) == "go"
    assert attempts.expired(engine) == []
    assert not attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5, only_expired=True)
    assert attempts.finish(engine, running.id, 1, state="succeeded", files=REPORT)


def test_leases_do_not_go_by_the_clock_of_a_worker(engine: Engine, queued: JobInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 600)
    attempts.claim(engine, queued.id, 1, worker="slow clock", lease=60)
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert attempts.expired(engine) == []
    assert attempts.beat(engine, queued.id, 1, lease=60) == "go"


def test_a_lost_job_is_queued_again_until_it_has_lost_too_many(engine: Engine, queued: JobInfo) -> None:
    for attempt in (1, 2, 3):
        assert state(engine, queued.id) == "queued"
        assert outbox.pending(engine) == [(queued.id, attempt, "auto")]
        attempts.claim(engine, queued.id, attempt, worker="w", lease=60)
        assert attempts.release(engine, queued.id, attempt, reason=LOST, max_attempts=3)
    info = jobs.get(engine, "default", queued.id)
    assert (info.state, info.reason, info.attempt) == ("failed", LOST, 3)
    assert info.finished is not None
    assert outbox.pending(engine) == []


def test_handing_back_is_no_loss(engine: Engine, queued: JobInfo) -> None:
    for attempt in range(1, 6):
        attempts.claim(engine, queued.id, attempt, worker="w", lease=60)
        assert attempts.release(engine, queued.id, attempt, reason=LOST, max_attempts=1, blame=False)
    assert state(engine, queued.id) == "queued"


def test_what_earlier_attempts_ran_is_counted_until_the_user_tries_again(
    engine: Engine, running: JobInfo, age: Callable[..., None]
) -> None:
    age("jobs", "started", 100)
    started = jobs.get(engine, "default", running.id).started
    for attempt, blame in ((1, True), (2, False)):
        assert attempts.release(engine, running.id, attempt, reason=LOST, max_attempts=5, blame=blame)
        claim = attempts.claim(engine, running.id, attempt + 1, worker="next", lease=60)
        assert claim
        assert 100 <= claim.ran < 160
        assert jobs.get(engine, "default", running.id).started == started
    assert attempts.finish(engine, running.id, 3, state="timed_out", reason=LOST)
    jobs.retry(engine, "default", running.id)
    anew = attempts.claim(engine, running.id, 4, worker="next", lease=60)
    assert anew
    assert anew.ran < 60


def test_a_lost_job_that_was_to_be_cancelled_is(engine: Engine, running: JobInfo) -> None:
    jobs.cancel(engine, "default", running.id)
    assert attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5)
    assert jobs.get(engine, "default", running.id).reason == jobs.CANCELLED
    assert state(engine, running.id) == "cancelled"


def test_many_reapers_release_once(engine: Engine, running: JobInfo, age: Callable[..., None]) -> None:
    age("jobs", "lease", 100)

    def reap(_: int) -> bool:
        return attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5, only_expired=True)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(reap, range(8))) == 1
    assert jobs.get(engine, "default", running.id).attempt == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.html", "text/html"),
        ("report.md", "text/markdown"),
        ("rows.csv", "text/csv"),
        ("x.npz", "application/zip"),
        ("noend", "application/octet-stream"),
    ],
)
def test_media_types(name: str, expected: str) -> None:
    assert attempts.media_type(name) == expected

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from sparring.contract.jobs import Job
from sparring.contract.resources import JobInfo
from sparring.storage import attempts, jobs, outbox


def test_what_was_sent_is_pending_no_more_and_stale_after_a_while(engine: Engine, queued: JobInfo, age: Callable[..., None]) -> None:
    bell = (queued.id, 1, "auto")
    assert outbox.pending(engine) == [bell]
    assert outbox.stale(engine, 0) == []
    outbox.sent(engine, queued.id, 1)
    assert outbox.pending(engine) == []
    assert outbox.stale(engine, 10) == []
    age("outbox", "sent", 11)
    assert outbox.stale(engine, 10) == [bell]
    outbox.sent(engine, queued.id, 1)
    assert outbox.stale(engine, 10) == []


def test_an_old_attempt_s_letter_does_not_count_for_the_new_one(engine: Engine, queued: JobInfo) -> None:
    jobs.cancel(engine, "default", queued.id)
    jobs.retry(engine, "default", queued.id)
    outbox.sent(engine, queued.id, 1)
    assert outbox.pending(engine) == [(queued.id, 2, "auto")]


def test_only_queued_jobs_are_waited_for(engine: Engine, job: Job, age: Callable[..., None]) -> None:
    ids = [jobs.accept(engine, job)[0].id for _ in range(3)]
    for id in ids:
        outbox.sent(engine, id, 1)
    age("outbox", "sent", 11)
    jobs.cancel(engine, "default", ids[0])
    attempts.claim(engine, ids[1], 1, worker="w", lease=60)
    assert [bell.job_id for bell in outbox.stale(engine, 10)] == [ids[2]]


def test_the_oldest_come_first_and_not_all_at_once(
    engine: Engine, job: Job, age: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    ids = []
    for device in ("cpu", "gpu", "auto"):
        age("outbox", "created", 10)
        ids.append(jobs.accept(engine, job.model_copy(update={"device": device}))[0].id)
    assert outbox.pending(engine) == [(ids[0], 1, "cpu"), (ids[1], 1, "gpu")]

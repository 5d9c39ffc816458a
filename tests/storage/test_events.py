from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from sparring.contract.resources import JobInfo
from sparring.contract.states import Progress, Reason
from sparring.storage import attempts, events, jobs

LOST = Reason(code="worker_lost", message="gone")


def beat(engine: Engine, id: str, done: int) -> None:
    assert attempts.beat(engine, id, 1, lease=600, progress=Progress(phase="attack", done=done, total=100)) == "go"


def told(engine: Engine, id: str, after: int = 0) -> list[tuple[str, str, int]]:
    return [(event.kind, event.state, event.progress.done) for event in events.list_events(engine, "default", id, after=after)]


def test_events_tell_the_story_of_a_job(engine: Engine, running: JobInfo) -> None:
    beat(engine, running.id, 7)
    attempts.release(engine, running.id, 1, reason=LOST, max_attempts=5)
    attempts.claim(engine, running.id, 2, worker="w", lease=60)
    attempts.finish(engine, running.id, 2, state="failed", reason=Reason(code="bad_data", message="no"))
    story = events.list_events(engine, "default", running.id)
    assert [(event.kind, event.state, event.attempt, event.reason and event.reason.code) for event in story] == [
        ("state", "queued", 1, None),
        ("state", "running", 1, None),
        ("progress", "running", 1, None),
        ("state", "queued", 2, "worker_lost"),
        ("state", "running", 2, None),
        ("state", "failed", 2, "bad_data"),
    ]
    assert jobs.get(engine, "default", running.id).attempt == 2
    assert [event.id for event in story] == sorted({event.id for event in story})
    assert [event.time for event in story] == sorted(event.time for event in story)
    assert {event.job for event in story} == {running.id}


def test_one_may_ask_for_what_came_after(engine: Engine, running: JobInfo) -> None:
    first, second = events.list_events(engine, "default", running.id)
    assert events.list_events(engine, "default", running.id, after=first.id) == (second,)
    assert events.list_events(engine, "default", running.id, after=second.id) == ()
    assert events.list_events(engine, "default", running.id, limit=1) == (first,)


def test_progress_is_always_kept_but_told_only_now_and_then(engine: Engine, running: JobInfo, age: Callable[..., None]) -> None:
    for done in (1, 2, 3):
        beat(engine, running.id, done)
    assert jobs.get(engine, "default", running.id).progress.done == 3
    assert told(engine, running.id)[2:] == [("progress", "running", 1)]
    age("events", "time", events.PROGRESS_EVERY)
    beat(engine, running.id, 4)
    assert told(engine, running.id)[2:] == [("progress", "running", 1), ("progress", "running", 4)]


def test_old_progress_is_forgotten_and_states_never(
    engine: Engine, running: JobInfo, age: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PROGRESS_KEPT", 3)
    for done in range(1, 8):
        age("events", "time", 1)
        beat(engine, running.id, done)
    assert told(engine, running.id) == [
        ("state", "queued", 0),
        ("state", "running", 0),
        *(("progress", "running", done) for done in (5, 6, 7)),
    ]


def test_ids_are_never_used_again(engine: Engine, running: JobInfo) -> None:
    attempts.finish(engine, running.id, 1, state="succeeded")
    last = events.list_events(engine, "default", running.id)[-1].id
    job = running.job
    jobs.delete(engine, "default", running.id)
    fresh, _ = jobs.accept(engine, job)
    assert events.list_events(engine, "default", fresh.id)[0].id > last

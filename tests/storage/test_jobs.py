import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from sparring.contract.jobs import JOB, Job
from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.states import FINAL, Reason
from sparring.storage import attempts, events, jobs, outbox, tables, uploads
from sparring.storage.artifacts import Blob
from sparring.storage.database import reading
from sparring.storage.errors import AlreadyFinal, InUse, KeyReused, Missing, NotFinal

BROKEN = Reason(code="bad_model", message="it does not load")


def counts(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(tables.metadata.tables[name])) for name in ("jobs", "outbox", "events")
        }


def states(engine: Engine, id: str) -> list[str]:
    return [event.state for event in events.list_events(engine, "default", id) if event.kind == "state"]


def together(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Does it in so many threads that begin at once."""
    gate = threading.Barrier(number)

    def begin(which: int) -> Any:
        gate.wait()
        return work(which)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


def ended(engine: Engine, id: str, state: str = "failed", **more: Any) -> JobInfo:
    attempt = jobs.get(engine, "default", id).attempt
    assert attempts.claim(engine, id, attempt, worker="w", lease=60)
    assert attempts.finish(engine, id, attempt, state=state, **more)
    return jobs.get(engine, "default", id)


def test_an_accepted_job_is_queued_announced_and_recorded_at_once(engine: Engine, job: Job) -> None:
    info, created = jobs.accept(engine, job)
    assert created
    assert (info.state, info.attempt, info.job, info.key, info.started, info.finished, info.artifacts) == (
        "queued",
        1,
        job,
        None,
        None,
        None,
        (),
    )
    assert jobs.get(engine, "default", info.id) == info
    assert outbox.pending(engine) == [(info.id, 1, "auto")]
    assert states(engine, info.id) == ["queued"]


@pytest.mark.parametrize("field", ["model", "data"])
def test_a_job_for_what_was_never_uploaded_leaves_nothing(engine: Engine, job: Job, field: str) -> None:
    with pytest.raises(Missing, match="upload it first"):
        jobs.accept(engine, job.model_copy(update={field: "0" * 64}), key="k")
    assert counts(engine) == {"jobs": 0, "outbox": 0, "events": 0}


def test_twenty_at_once_with_one_key_make_one_job(engine: Engine, job: Job) -> None:
    answers = together(20, lambda _: jobs.accept(engine, job, key="same"))
    assert len({info.id for info, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False] * 19 + [True]
    assert counts(engine) == {"jobs": 1, "outbox": 1, "events": 1}


def test_twenty_at_once_without_a_key_make_twenty(engine: Engine, job: Job) -> None:
    together(20, lambda _: jobs.accept(engine, job))
    assert counts(engine) == {"jobs": 20, "outbox": 20, "events": 20}


def test_a_key_stands_for_one_job_however_it_is_written(engine: Engine, job: Job) -> None:
    first, _ = jobs.accept(engine, job, key="k")
    spelled = JOB.validate_python({**job.model_dump(mode="json"), "knowledge": ["white", "black", "gray"], "seed": 0})
    assert jobs.accept(engine, spelled, key="k") == (first, False)
    with pytest.raises(KeyReused, match=first.id):
        jobs.accept(engine, job.model_copy(update={"seed": 1}), key="k")
    assert jobs.accept(engine, job, key="k2")[1]


def test_a_key_outlives_the_state_of_its_job(engine: Engine, job: Job) -> None:
    info, _ = jobs.accept(engine, job, key="k")
    done = ended(engine, info.id, "succeeded")
    assert jobs.accept(engine, job, key="k") == (done, False)


def test_projects_do_not_see_each_other_s_jobs(engine: Engine, queued: JobInfo) -> None:
    for act in (jobs.get, jobs.cancel, jobs.retry, jobs.delete):
        with pytest.raises(Missing):
            act(engine, "other", queued.id)
    with pytest.raises(Missing):
        events.list_events(engine, "other", queued.id)
    assert jobs.list_jobs(engine, "other", limit=10).items == ()


def test_lists_by_key_state_and_page(engine: Engine, job: Job) -> None:
    made = [jobs.accept(engine, job, key=f"k{number}")[0] for number in range(5)]
    jobs.cancel(engine, "default", made[0].id)
    assert [info.id for info in jobs.list_jobs(engine, "default", limit=10, key="k3").items] == [made[3].id]
    assert [info.id for info in jobs.list_jobs(engine, "default", limit=10, state="cancelled").items] == [made[0].id]
    first = jobs.list_jobs(engine, "default", limit=3)
    rest = jobs.list_jobs(engine, "default", limit=3, cursor=first.next_cursor)
    assert {info.id for info in (*first.items, *rest.items)} == {info.id for info in made}
    assert (len(first.items), len(rest.items), rest.next_cursor) == (3, 2, None)


def test_a_queued_job_is_cancelled_at_once(engine: Engine, queued: JobInfo) -> None:
    info = jobs.cancel(engine, "default", queued.id)
    assert (info.state, info.reason and info.reason.code) == ("cancelled", "cancelled_by_user")
    assert info.finished is not None
    assert outbox.pending(engine) == []
    assert attempts.claim(engine, queued.id, 1, worker="w", lease=60) is None
    assert states(engine, queued.id) == ["queued", "cancelled"]
    with pytest.raises(AlreadyFinal, match="been cancelled"):
        jobs.cancel(engine, "default", queued.id)


def test_a_running_job_is_told_at_its_next_sign_of_life(engine: Engine, running: JobInfo) -> None:
    assert attempts.beat(engine, running.id, 1, lease=60) == "go"
    assert jobs.cancel(engine, "default", running.id).state == "running"
    assert attempts.beat(engine, running.id, 1, lease=60) == "cancel"
    assert attempts.finish(engine, running.id, 1, state="cancelled", reason=jobs.CANCELLED)
    assert states(engine, running.id) == ["queued", "running", "cancelled"]


def test_cancel_races_finish_to_exactly_one_end(engine: Engine, job: Job) -> None:
    for _ in range(10):
        info, _ = jobs.accept(engine, job)
        attempts.claim(engine, info.id, 1, worker="w", lease=60)

        def race(which: int, id: str = info.id) -> object:
            if which:
                return attempts.finish(engine, id, 1, state="succeeded")
            try:
                return jobs.cancel(engine, "default", id).state
            except AlreadyFinal:
                return "too late"

        said, finished = together(2, race)
        assert finished
        assert said in ("running", "too late")
        assert states(engine, info.id) == ["queued", "running", "succeeded"]


def test_cancel_races_claim_to_one_of_two_ends(engine: Engine, job: Job) -> None:
    for _ in range(10):
        info, _ = jobs.accept(engine, job)

        def race(which: int, id: str = info.id) -> object:
            return attempts.claim(engine, id, 1, worker="w", lease=60) if which else jobs.cancel(engine, "default", id).state

        said, claim = together(2, race)
        if claim is None:
            assert said == "cancelled"
            assert states(engine, info.id) == ["queued", "cancelled"]
        else:
            assert said == "running"
            assert attempts.beat(engine, info.id, 1, lease=60) == "cancel"


@pytest.mark.parametrize("state", ["failed", "timed_out", "cancelled"])
def test_retry_is_a_new_attempt_with_a_clean_slate(engine: Engine, queued: JobInfo, state: str) -> None:
    ended(engine, queued.id, state, reason=BROKEN, files={"rows.csv": Blob("0" * 64, 3)})
    info = jobs.retry(engine, "default", queued.id)
    assert (info.state, info.attempt, info.reason, info.artifacts, info.finished, info.progress.done) == ("queued", 2, None, (), None, 0)
    assert outbox.pending(engine) == [(queued.id, 2, "auto")]
    assert attempts.claim(engine, queued.id, 1, worker="late", lease=60) is None
    assert attempts.claim(engine, queued.id, 2, worker="w", lease=60)


def test_retry_forgets_the_lost_workers(engine: Engine, queued: JobInfo) -> None:
    for attempt in (1, 2):
        attempts.claim(engine, queued.id, attempt, worker="w", lease=60)
        attempts.release(engine, queued.id, attempt, reason=BROKEN, max_attempts=2)
    assert jobs.get(engine, "default", queued.id).state == "failed"
    jobs.retry(engine, "default", queued.id)
    attempts.claim(engine, queued.id, 3, worker="w", lease=60)
    attempts.release(engine, queued.id, 3, reason=BROKEN, max_attempts=2)
    assert jobs.get(engine, "default", queued.id).state == "queued"


def test_only_what_has_ended_badly_is_tried_again(engine: Engine, queued: JobInfo) -> None:
    with pytest.raises(NotFinal, match="queued"):
        jobs.retry(engine, "default", queued.id)
    attempts.claim(engine, queued.id, 1, worker="w", lease=60)
    with pytest.raises(NotFinal, match="running"):
        jobs.retry(engine, "default", queued.id)
    attempts.finish(engine, queued.id, 1, state="succeeded")
    with pytest.raises(AlreadyFinal, match="succeeded"):
        jobs.retry(engine, "default", queued.id)


def test_ten_retries_at_once_are_one(engine: Engine, queued: JobInfo) -> None:
    ended(engine, queued.id)

    def retry(_: int) -> bool:
        try:
            return bool(jobs.retry(engine, "default", queued.id))
        except NotFinal:
            return False

    assert sum(together(10, retry)) == 1
    assert jobs.get(engine, "default", queued.id).attempt == 2


def test_a_deleted_job_leaves_nothing_and_frees_its_key(engine: Engine, job: Job) -> None:
    info, _ = jobs.accept(engine, job, key="k")
    with pytest.raises(NotFinal, match="cancel it"):
        jobs.delete(engine, "default", info.id)
    ended(engine, info.id, files={"rows.csv": Blob("0" * 64, 3)})
    jobs.delete(engine, "default", info.id)
    with pytest.raises(Missing):
        jobs.get(engine, "default", info.id)
    assert counts(engine) == {"jobs": 0, "outbox": 0, "events": 0}
    assert jobs.accept(engine, job, key="k")[1]


@pytest.mark.parametrize(
    ("device", "alive", "note"),
    [
        ("cpu", {"sparring:gpu"}, "no live worker on sparring:cpu"),
        ("gpu", {"sparring:cpu"}, "no live worker on sparring:gpu"),
        ("auto", set(), "no live worker on sparring:cpu or sparring:gpu"),
        ("auto", {"sparring:cpu"}, ""),
        ("gpu", {"sparring:gpu"}, ""),
    ],
)
def test_a_job_without_a_worker_says_so(engine: Engine, job: Job, device: str, alive: set[str], note: str) -> None:
    info, _ = jobs.accept(engine, job.model_copy(update={"device": device}))
    assert jobs.with_note(info, alive).note == note


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_job_that_has_ended_needs_no_worker(engine: Engine, queued: JobInfo, state: str) -> None:
    assert jobs.with_note(ended(engine, queued.id, state), set()).note == ""


def test_what_a_job_needs_beside_its_model_and_data_is_held_with_it(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    blob = Blob("c" * 64, 1)
    training = uploads.add_dataset(engine, project="default", name="train", blob=blob, format="npz", spec=DataSpec())
    other = uploads.add_model(engine, project="default", name="other", blob=blob, format="pt2", spec=ModelSpec())
    attack = {"kind": "transfer", "models": [other.id]}
    job = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": 0.1}], "attacks": [attack]}
    info, _ = jobs.accept(engine, JOB.validate_python(job | {"training": training.id}))
    for delete, id in ((uploads.delete_dataset, training.id), (uploads.delete_model, other.id)):
        with pytest.raises(InUse, match=info.id):
            delete(engine, "default", id)
    claim = attempts.claim(engine, info.id, 1, worker="w", lease=60)
    assert claim is not None
    assert claim.others == {"training": training, other.id: other}
    assert attempts.finish(engine, info.id, 1, state="failed")
    uploads.delete_dataset(engine, "default", training.id)
    with pytest.raises(Missing, match="deleted"):
        jobs.retry(engine, "default", info.id)


def test_a_job_that_needs_what_is_not_there_is_not_taken_on(engine: Engine, model: ModelInfo, data: DatasetInfo) -> None:
    job = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": 0.1}], "training": "dat_" + "x" * 20}
    with pytest.raises(Missing, match="there is no dataset"):
        jobs.accept(engine, JOB.validate_python(job))
    assert jobs.list_jobs(engine, "default", limit=10).items == ()

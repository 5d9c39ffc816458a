"""Jobs as a user sees them: accepted, listed, cancelled, tried again, deleted."""

from collections.abc import Collection

from sqlalchemy import Connection, Engine, RowMapping, func, null, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.engine import MappingResult

from sparring.contract.jobs import JOB, Evaluate, Job, misfit
from sparring.contract.queue import QUEUES
from sparring.contract.resources import ArtifactInfo, JobInfo, Page
from sparring.contract.states import FINAL, Progress, Reason, State
from sparring.storage import tables
from sparring.storage.database import insert, now, reading, writing
from sparring.storage.errors import AlreadyFinal, KeyReused, Missing, NotFinal, Unfit
from sparring.storage.events import record_state
from sparring.storage.ids import new_id
from sparring.storage.outbox import announce, withdraw
from sparring.storage.pages import moment, page
from sparring.storage.replays import resolved
from sparring.storage.tables import DEFAULT_PROJECT, jobs
from sparring.storage.uploads import find_dataset, find_model, made_by

CANCELLED = Reason(code="cancelled_by_user", message="the job was cancelled", hint="Retry the job to go on where it stopped.")


def accept(engine: Engine, job: Job, *, project: str = DEFAULT_PROJECT, key: str | None = None) -> tuple[JobInfo, bool]:
    """Takes a job on: when this returns it will be run, whatever happens to the queue.

    Returns the job and whether it is new; with an idempotency key that was used for the same job before, that one.
    Raises Missing when its model or data is not there, Unfit when it cannot be done to its model, KeyReused when the key stands for
    another job.
    """
    with writing(engine) as connection:
        if key is not None and (known := _by_key(connection, project, key).first()) is not None:
            return _same(connection, known, job), False
        model, data = find_model(connection, project, job.model), find_dataset(connection, project, job.data)
        if found := misfit(job, model.spec.endpoint):
            raise Unfit(*found)
        job = resolved(connection, project, job, model, data)
        row: dict[str, object] = {
            "id": new_id("job"),
            "project_id": project,
            "key": key,
            "body": job.model_dump_json(),
            "device": job.device,
        }
        row |= {"model_id": model.id, "data_id": data.id, "state": "queued", "attempt": 1, "lost": 0, "cancel": False}
        row |= {"progress": Progress().model_dump_json()}
        new = insert(connection, jobs).values(**row, created=now()).on_conflict_do_nothing(index_elements=["project_id", "key"])
        created = connection.execute(new.returning(jobs)).mappings().first()
        if created is None:
            # Another transaction with this key was first; the insert has waited for its end.
            return _same(connection, _by_key(connection, project, key).one(), job), False
        _keep_inputs(connection, created, job)
        announce(connection, created["id"])
        record_state(connection, created["id"])
        return _info(connection, created), True


def get(engine: Engine, project: str, id: str) -> JobInfo:
    """One job. Raises Missing."""
    with reading(engine) as connection:
        return _info(connection, _row(connection, project, id))


def list_jobs(
    engine: Engine,
    project: str,
    *,
    limit: int,
    cursor: str | None = None,
    key: str | None = None,
    state: State | None = None,
    model: str | None = None,
    data: str | None = None,
) -> Page[JobInfo]:
    """A page of jobs, newest first; of one idempotency key, in one state, of one model, on one dataset (their ids) if given.

    Raises BadCursor.
    """
    where = [jobs.c.project_id == project]
    where += [jobs.c.key == key] if key is not None else []
    where += [jobs.c.state == state] if state is not None else []
    where += [jobs.c.model_id == model] if model is not None else []
    where += [jobs.c.data_id == data] if data is not None else []
    with reading(engine) as connection:
        return page(connection, jobs, lambda row: _info(connection, row), *where, limit=limit, cursor=cursor)


def count(engine: Engine, project: str) -> dict[State, int]:
    """How many jobs are in each state; states that no job is in are left out."""
    query = select(jobs.c.state, func.count().label("number")).where(jobs.c.project_id == project).group_by(jobs.c.state)
    with reading(engine) as connection:
        return {row.state: row.number for row in connection.execute(query)}


def cancel(engine: Engine, project: str, id: str) -> JobInfo:
    """Cancels a job: at once while it is queued; a running one is told at its next sign of life. Raises Missing, AlreadyFinal."""
    with writing(engine) as connection:
        row = _row(connection, project, id, lock=True)
        if row["state"] in FINAL:
            raise AlreadyFinal(f"{id} has {_ended(row['state'])} already and cannot be cancelled")
        if row["state"] == "running":
            return _info(connection, _update(connection, id, cancel=True))
        row = _update(connection, id, state="cancelled", reason=CANCELLED.model_dump_json(), finished=now())
        withdraw(connection, id)
        record_state(connection, id)
        return _info(connection, row)


def retry(engine: Engine, project: str, id: str) -> JobInfo:
    """Queues a job again that failed, was cancelled or timed out.

    Raises Missing (also when its model or data was deleted), NotFinal while it is queued or running, AlreadyFinal when it succeeded.
    """
    with writing(engine) as connection:
        _hold_inputs(connection, _row(connection, project, id))
        row = _row(connection, project, id, lock=True)
        if row["state"] not in FINAL:
            raise NotFinal(f"{id} is {row['state']}: only a job that has ended can be tried again")
        if row["state"] == "succeeded":
            raise AlreadyFinal(f"{id} has succeeded: submit it as a new job to run it once more")
        connection.execute(delete_from(tables.artifacts).where(tables.artifacts.c.job_id == id))
        fresh = {"state": "queued", "reason": null(), "started": null(), "finished": null(), "progress": Progress().model_dump_json()}
        row = _update(connection, id, **fresh, attempt=jobs.c.attempt + 1, lost=0, cancel=False)
        announce(connection, id)
        record_state(connection, id)
        return _info(connection, row)


def delete(engine: Engine, project: str, id: str) -> None:
    """Forgets a job with its events, its artifacts and its idempotency key. Raises Missing, and NotFinal while it is queued or running."""
    with writing(engine) as connection:
        row = _row(connection, project, id, lock=True)
        if row["state"] not in FINAL:
            raise NotFinal(f"{id} is {row['state']}: cancel it before you delete it")
        connection.execute(delete_from(jobs).where(jobs.c.id == id))


def with_note(job: JobInfo, alive: Collection[str]) -> JobInfo:
    """The job, saying so if it waits and no worker is alive for it; `alive`: the names of the queues that have one."""
    wanted = QUEUES.values() if job.job.device == "auto" else [QUEUES[job.job.device]]
    if job.state != "queued" or any(queue in alive for queue in wanted):
        return job
    return job.model_copy(update={"note": f"no live worker on {' or '.join(wanted)}"})


def _row(connection: Connection, project: str, id: str, *, lock: bool = False) -> RowMapping:
    query = select(jobs).where(jobs.c.project_id == project, jobs.c.id == id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise Missing(f"there is no job {id[:80]!r} in this project: list the jobs to find its id")
    return row


def _by_key(connection: Connection, project: str, key: str | None) -> MappingResult:
    return connection.execute(select(jobs).where(jobs.c.project_id == project, jobs.c.key == key)).mappings()


def _same(connection: Connection, row: RowMapping, job: Job) -> JobInfo:
    known = JOB.validate_json(row["body"])
    if isinstance(known, Evaluate) and isinstance(job, Evaluate) and job.replay is None:
        known = known.model_copy(update={"replay": None})  # what the service chose then it might not choose now
    if known != job:
        raise KeyReused(f"the idempotency key {row['key'][:80]!r} was used for another job ({row['id']}): choose a new one")
    return _info(connection, row)


def _keep_inputs(connection: Connection, row: RowMapping, job: Job) -> None:
    """Writes down what the job needs beside its model and its data. Raises Missing when something is not there."""
    for name, need in job.needs().items():
        find, column = (find_model, "model_id") if need.kind == "model" else (find_dataset, "data_id")
        held = {column: find(connection, row["project_id"], need.ref).id}
        connection.execute(insert(connection, tables.inputs).values(job_id=row["id"], name=name, project_id=row["project_id"], **held))


def _hold_inputs(connection: Connection, row: RowMapping) -> None:
    """Keeps what the job needs from being deleted until the end of the transaction. Raises Missing if it was."""
    others = connection.execute(select(tables.inputs).where(tables.inputs.c.job_id == row["id"])).mappings().all()
    if row["model_id"] is None or row["data_id"] is None or any(each["model_id"] is each["data_id"] for each in others):
        raise Missing(f"a model or a dataset of {row['id']} was deleted: upload it again and submit a new job")
    for each in (row, *others):
        if each["model_id"] is not None:
            find_model(connection, row["project_id"], each["model_id"])
        if each["data_id"] is not None:
            find_dataset(connection, row["project_id"], each["data_id"])


def _update(connection: Connection, id: str, **values: object) -> RowMapping:
    return connection.execute(update(jobs).where(jobs.c.id == id).values(values).returning(jobs)).mappings().one()


def _ended(state: State) -> str:
    return {"cancelled": "been cancelled", "timed_out": "timed out"}.get(state, state)


def _info(connection: Connection, row: RowMapping) -> JobInfo:
    files = tables.artifacts
    left = connection.execute(select(files).where(files.c.job_id == row["id"]).order_by(files.c.name)).mappings()
    return JobInfo(
        id=row["id"],
        state=row["state"],
        progress=Progress.model_validate_json(row["progress"]),
        attempt=row["attempt"],
        reason=Reason.model_validate_json(row["reason"]) if row["reason"] else None,
        job=JOB.validate_json(row["body"]),
        key=row["key"],
        created=moment(row["created"]),
        started=moment(row["started"]) if row["started"] is not None else None,
        finished=moment(row["finished"]) if row["finished"] is not None else None,
        artifacts=tuple(
            ArtifactInfo(name=file["name"], sha256=file["sha256"], size=file["size"], media_type=file["media_type"]) for file in left
        ),
        models=made_by(connection, row["id"]),
    )

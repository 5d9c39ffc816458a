"""Attempts: how a worker holds a job, and how it is taken from a worker that gives no sign of life.

Everything is conditional on (job, attempt, running): a worker that comes back from the dead changes nothing any more.
All times are the database's.
"""

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, null, select, update

from sparring.contract.jobs import JOB, Job
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.states import FINAL, Progress, Reason, State
from sparring.storage.artifacts import Blob
from sparring.storage.database import now, reading, writing
from sparring.storage.events import record_progress, record_state
from sparring.storage.jobs import CANCELLED
from sparring.storage.outbox import announce, withdraw
from sparring.storage.replays import Kept, kept
from sparring.storage.tables import artifacts, datasets, inputs, jobs, models
from sparring.storage.uploads import Made, add_made, dataset_info, model_info

_MEDIA_TYPES = {".md": "text/markdown", ".parquet": "application/vnd.apache.parquet", ".npz": "application/zip"}


class Claim(NamedTuple):
    """A job that is this worker's to run, and what it needs."""

    job_id: str
    attempt: int
    project: str
    job: Job
    model: ModelInfo
    data: DatasetInfo
    others: dict[str, ModelInfo | DatasetInfo]
    """What else the job needs, by the name it has there."""
    ran: float
    """Seconds since the job was first taken after it was submitted or tried again by its user, by the database's clock."""
    earlier: tuple[Kept, ...] = ()
    """What is replayed."""


def claim(engine: Engine, job_id: str, attempt: int, *, worker: str, lease: float) -> Claim | None:
    """Takes a queued job for `lease` seconds; None when this attempt is not there to be taken: the message was late or sent twice."""
    held = {"state": "running", "worker": worker, "lease": now() + lease, "started": func.coalesce(jobs.c.started, now())}
    with writing(engine) as connection:
        query = update(jobs).where(_attempt(job_id, attempt), jobs.c.state == "queued").values(held)
        row = connection.execute(query.returning(jobs, (now() - jobs.c.started).label("ran"))).mappings().first()
        if row is None:
            return None
        withdraw(connection, job_id)
        record_state(connection, job_id)
        model = connection.execute(select(models).where(models.c.id == row["model_id"])).mappings().one()
        data = connection.execute(select(datasets).where(datasets.c.id == row["data_id"])).mappings().one()
        job, others = JOB.validate_json(row["body"]), _others(connection, job_id)
        told = model_info(connection, model), dataset_info(connection, data)
        past = kept(connection, row["project_id"], (job.kind == "evaluate" and job.replay) or (), told[1].sha256)
        return Claim(job_id, attempt, row["project_id"], job, *told, others, max(0.0, row["ran"]), past)


def _others(connection: Connection, job_id: str) -> dict[str, ModelInfo | DatasetInfo]:
    found: dict[str, ModelInfo | DatasetInfo] = {}
    for each in connection.execute(select(inputs).where(inputs.c.job_id == job_id)).mappings():
        if each["model_id"] is not None:
            row = connection.execute(select(models).where(models.c.id == each["model_id"])).mappings().one()
            found[each["name"]] = model_info(connection, row)
        else:
            row = connection.execute(select(datasets).where(datasets.c.id == each["data_id"])).mappings().one()
            found[each["name"]] = dataset_info(connection, row)
    return found


def beat(engine: Engine, job_id: str, attempt: int, *, lease: float, progress: Progress | None = None) -> Literal["go", "cancel", "fenced"]:
    """A sign of life: holds the job for `lease` seconds from now.

    Answers `cancel` when the user wants it to end, and `fenced` when it is no longer this attempt's: it must stop and touch nothing.
    """
    values: dict[str, object] = {"lease": now() + lease}
    if progress is not None:
        values["progress"] = progress.model_dump_json()
    with writing(engine) as connection:
        wanted = connection.execute(update(jobs).where(_running(job_id, attempt)).values(values).returning(jobs.c.cancel)).first()
        if wanted is None:
            return "fenced"
        if progress is not None:
            record_progress(connection, job_id)
        return "cancel" if wanted.cancel else "go"


def finish(
    engine: Engine,
    job_id: str,
    attempt: int,
    *,
    state: State,
    reason: Reason | None = None,
    files: Mapping[str, Blob] | None = None,
    made: Sequence[Made] = (),
) -> bool:
    """Ends a job: its state, its files and the models it made at once.

    Or nothing, and False, when the lease has run out or the attempt is another's.
    """
    if state not in FINAL:
        raise ValueError(f"a job does not end as {state}")
    ended = {"state": state, "reason": reason.model_dump_json() if reason else None, "finished": now(), "lease": null()}
    with writing(engine) as connection:
        query = update(jobs).where(_running(job_id, attempt), jobs.c.lease > now()).values(ended).returning(jobs.c.project_id)
        project = connection.scalar(query)
        if project is None:
            return False
        rows = [
            {"job_id": job_id, "project_id": project, "name": name, "media_type": media_type(name), **blob._asdict()}
            for name, blob in (files or {}).items()
        ]
        if rows:
            connection.execute(insert(artifacts), rows)
        add_made(connection, project, job_id, made)
        record_state(connection, job_id)
        return True


def release(
    engine: Engine, job_id: str, attempt: int, *, reason: Reason, max_attempts: int, blame: bool = True, only_expired: bool = False
) -> bool:
    """Takes a running job from its worker and queues its next attempt; False when it is not this attempt's any more.

    With `blame` it counts as a lost worker; a job that has lost `max_attempts` of them fails with `reason` instead. One that was
    to be cancelled ends as cancelled. With `only_expired` nothing is done if the worker has given a sign of life meanwhile.
    """
    with writing(engine) as connection:
        query = select(jobs.c.lost, jobs.c.cancel).where(_running(job_id, attempt)).with_for_update()
        row = connection.execute(query.where(jobs.c.lease <= now()) if only_expired else query).first()
        if row is None:
            return False
        lost = row.lost + blame
        if row.cancel:
            _end(connection, job_id, "cancelled", CANCELLED, lost)
        elif lost >= max_attempts:
            _end(connection, job_id, "failed", reason, lost)
        else:
            again = {"state": "queued", "attempt": attempt + 1, "lost": lost, "worker": null(), "lease": null()}
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(again))
            announce(connection, job_id)
            record_state(connection, job_id, reason)
        return True


def expired(engine: Engine) -> list[tuple[str, int]]:
    """Running attempts whose lease has run out."""
    query = select(jobs.c.id, jobs.c.attempt).where(jobs.c.state == "running", jobs.c.lease <= now()).order_by(jobs.c.lease)
    with reading(engine) as connection:
        return [(row.id, row.attempt) for row in connection.execute(query)]


def media_type(name: str) -> str:
    """The media type of a file, by its name."""
    suffix = name[name.rfind(".") :]
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _attempt(job_id: str, attempt: int) -> ColumnElement[bool]:
    return (jobs.c.id == job_id) & (jobs.c.attempt == attempt)


def _running(job_id: str, attempt: int) -> ColumnElement[bool]:
    return _attempt(job_id, attempt) & (jobs.c.state == "running")


def _end(connection: Connection, job_id: str, state: State, reason: Reason, lost: int) -> None:
    ended = {"state": state, "reason": reason.model_dump_json(), "lost": lost, "finished": now(), "lease": null()}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(ended))
    record_state(connection, job_id)

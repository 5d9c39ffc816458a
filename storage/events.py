"""What happened to a job, as rows: every change of state for ever, the newest of the progress."""

from sqlalchemy import Connection, Engine, RowMapping, delete, insert, literal, select

from sparring.contract.resources import EventInfo
from sparring.contract.states import Progress, Reason
from sparring.storage import webhooks
from sparring.storage.database import now, reading
from sparring.storage.errors import Missing
from sparring.storage.pages import moment
from sparring.storage.tables import events, jobs

PROGRESS_EVERY = 0.5
"""Seconds between two progress events of a job, at least."""
PROGRESS_KEPT = 200
"""Progress events kept for each job."""


def list_events(engine: Engine, project: str, job_id: str, *, after: int = 0, limit: int = 500) -> tuple[EventInfo, ...]:
    """The events of a job with an id above `after`, oldest first. Raises Missing."""
    with reading(engine) as connection:
        if connection.scalar(select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.project_id == project)) is None:
            raise Missing(f"there is no job {job_id[:80]!r} in this project: list the jobs to find its id")
        query = select(events).where(events.c.job_id == job_id, events.c.id > after).order_by(events.c.id).limit(limit)
        return tuple(_info(row) for row in connection.execute(query).mappings())


def record_state(connection: Connection, job_id: str, reason: Reason | None = None) -> None:
    """Writes down where a job stands, and for webhooks if it has ended.

    The row of the job must be written in this transaction before: that orders a job's events.

    The reason is the job's own unless given (a job that goes back to the queue has none, but there is one for its going back).
    """
    _record(connection, job_id, "state", reason)
    webhooks.announce(connection, job_id)


def record_progress(connection: Connection, job_id: str) -> None:
    """Writes down how far a job is, unless that was done a moment ago, and forgets the oldest such events."""
    mine = (events.c.job_id == job_id) & (events.c.kind == "progress")
    lately = select(events.c.id).where(mine, events.c.time > now() - PROGRESS_EVERY).limit(1)
    if connection.scalar(lately) is not None:
        return
    _record(connection, job_id, "progress", None)
    oldest = select(events.c.id).where(mine).order_by(events.c.id.desc()).offset(PROGRESS_KEPT).limit(1).scalar_subquery()
    connection.execute(delete(events).where(mine, events.c.id <= oldest))


def _record(connection: Connection, job_id: str, kind: str, reason: Reason | None) -> None:
    told = jobs.c.reason if reason is None else literal(reason.model_dump_json())
    columns = ["project_id", "job_id", "time", "kind", "state", "attempt", "progress", "reason"]
    row = select(jobs.c.project_id, jobs.c.id, now(), literal(kind), jobs.c.state, jobs.c.attempt, jobs.c.progress, told)
    connection.execute(insert(events).from_select(columns, row.where(jobs.c.id == job_id)))


def _info(row: RowMapping) -> EventInfo:
    return EventInfo(
        id=row["id"],
        job=row["job_id"],
        time=moment(row["time"]),
        kind=row["kind"],
        state=row["state"],
        attempt=row["attempt"],
        progress=Progress.model_validate_json(row["progress"]),
        reason=Reason.model_validate_json(row["reason"]) if row["reason"] else None,
    )

"""The outbox: which queued jobs the queue has yet to be told of, and which it may have forgotten."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from sparring.contract.fields import Where
from sparring.storage.database import now, reading, writing
from sparring.storage.tables import jobs, outbox

BATCH = 1000
"""Rows handed out at once."""


class Doorbell(NamedTuple):
    """One attempt of a job that waits for a worker."""

    job_id: str
    attempt: int
    device: Where


def pending(engine: Engine) -> list[Doorbell]:
    """Queued jobs the queue has not been told of, oldest first, at most BATCH."""
    return _waiting(engine, outbox.c.sent.is_(None), order=outbox.c.created)


def stale(engine: Engine, older_than_s: float) -> list[Doorbell]:
    """Queued jobs the queue was told of more than so many seconds ago, longest ago first, at most BATCH."""
    return _waiting(engine, outbox.c.sent < now() - older_than_s, order=outbox.c.sent)


def sent(engine: Engine, job_id: str, attempt: int) -> None:
    """Remembers that the queue was told just now."""
    with writing(engine) as connection:
        connection.execute(update(outbox).where(outbox.c.job_id == job_id, outbox.c.attempt == attempt).values(sent=now()))


def announce(connection: Connection, job_id: str) -> None:
    """Has the dispatcher tell the queue of a job's present attempt. To be called in the transaction that queues it."""
    row = select(jobs.c.id, jobs.c.project_id, jobs.c.attempt, now()).where(jobs.c.id == job_id)
    connection.execute(insert(outbox).from_select(["job_id", "project_id", "attempt", "created"], row))


def withdraw(connection: Connection, job_id: str) -> None:
    """The job is no longer queued. To be called in the transaction that takes it from the queue."""
    connection.execute(delete(outbox).where(outbox.c.job_id == job_id))


def _waiting(engine: Engine, which: ColumnElement[bool], *, order: ColumnElement[float]) -> list[Doorbell]:
    query = select(outbox.c.job_id, outbox.c.attempt, jobs.c.device).join(jobs).where(which).order_by(order).limit(BATCH)
    with reading(engine) as connection:
        return [Doorbell(*row) for row in connection.execute(query)]

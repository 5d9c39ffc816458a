"""The two functions that may be called by queue, and no other. Light to import: the horse is loaded only when it runs."""

from functools import cache
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine

from sparring.contract.faults import plainly
from sparring.contract.jobs import JOB
from sparring.storage import queue
from sparring.storage.database import connect
from sparring.storage.jobs import accept
from sparring.storage.settings import Settings


def submit(job: dict[str, Any]) -> str:
    """Takes on a Job given as JSON and returns its id; the RQ id of the message is its idempotency key, its project is `default`.

    Raises ValueError when it is no valid job, and StorageError when its model or data is missing or the key was used for another job.
    """
    try:
        wanted = JOB.validate_python(job)
    except ValidationError as fault:
        raise ValueError(f"this is not a valid job: {_readable(fault)}") from None
    info, _ = accept(_engine(Settings().database), wanted, key=queue.current_id())
    return info.id


def run(job_id: str, attempt: int) -> None:
    """Runs one attempt of a job to its end, in the process of an RQ work horse."""
    from sparring.workers.horse import run as run_attempt

    run_attempt(job_id, attempt)


@cache
def _engine(url: str) -> Engine:
    return connect(url)


def _readable(fault: ValidationError) -> str:
    """Every fault with its place: `threats.0.eps: must not be negative`."""
    found = fault.errors(include_url=False)
    return "; ".join(f"{'.'.join(str(part) for part in error['loc']) or 'job'}: {plainly(error)}" for error in found)

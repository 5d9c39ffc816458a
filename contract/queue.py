"""The queue as others see it: names, and the one public entry."""

from typing import Literal

INTAKE = "sparring:intake"
"""Queue that any RQ client with the JSON serializer may use."""
ENTRY = "sparring.workers.door.submit"
"""The one function that may be enqueued on INTAKE; its argument is a Job as JSON. The RQ id is the idempotency key."""
RUN = "sparring.workers.door.run"
"""Enqueued by the dispatcher only."""

Device = Literal["cpu", "gpu"]
QUEUES: dict[Device, str] = {"cpu": "sparring:cpu", "gpu": "sparring:gpu"}


def run_id(job_id: str, attempt: int) -> str:
    """RQ id of one attempt: the same attempt is never queued twice."""
    return f"{job_id}-{attempt}"

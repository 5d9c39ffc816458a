"""Who works, and on which queues."""

from fastapi import APIRouter, Response

from sparring.contract.queue import QUEUES
from sparring.contract.resources import WorkerInfo
from sparring.service.web.names import Names, Titled
from sparring.service.web.view import Seen
from sparring.storage import jobs, queue
from sparring.storage.errors import Missing

router = APIRouter()

WAITING = 200
"""Waiting jobs that are looked through."""


@router.get("/workers")
def worker_list(page: Seen) -> Response:
    """Workers that gave a sign of life, and how many jobs wait for which queue."""
    names = Names(page.context, page.project)
    try:
        found = queue.workers(page.context.redis)
    except queue.Unreachable:
        found = None
    waiting = jobs.list_jobs(page.context.engine, page.project, limit=WAITING, state="queued").items
    lines = [
        (name, sum(job.job.device in (device, "auto") for job in waiting), [each.name for each in found or () if name in each.queues])
        for device, name in QUEUES.items()
    ]
    return page.show(
        "workers", workers=None if found is None else [(each, _busy(page, names, each)) for each in found], queues=lines, many=WAITING
    )


def _busy(page: Seen, names: Names, worker: WorkerInfo) -> Titled | None:
    """What a worker is at, if that belongs to the project."""
    try:
        return names.job(jobs.get(page.context.engine, page.project, worker.job)) if worker.job else None
    except Missing:
        return None

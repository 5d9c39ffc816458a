"""What happens to a job, as server-sent events that can be taken up again where they broke off."""

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from sparring.contract.resources import EventInfo, JobInfo
from sparring.contract.states import FINAL
from sparring.service.auth import Project
from sparring.service.context import Context, Ctx
from sparring.storage import events, jobs
from sparring.storage.errors import Missing

router = APIRouter(prefix="/jobs", tags=["jobs"])

BATCH = 500
SHORTEST, LONGEST = 0.05, 0.2
"""Seconds between two looks into the records: after news, and when there has been none for a while."""


def _look(context: Context, project: str, job_id: str, after: int) -> tuple[bool, tuple[EventInfo, ...]]:
    """Whether the job has ended, and its next events. Raises Missing."""
    # The state is read before the events: a job seen as ended has no event still to come.
    ended = jobs.get(context.engine, project, job_id).state in FINAL
    return ended, events.list_events(context.engine, project, job_id, after=after, limit=BATCH)


def _existing(context: Ctx, project: Project, job_id: str) -> JobInfo:
    """The job, so that a missing one is answered before the stream begins."""
    return jobs.get(context.engine, project, job_id)


@router.get("/{job_id}/events", response_class=EventSourceResponse, summary="Follow a job")
async def job_events(
    context: Ctx,
    project: Project,
    job: Annotated[JobInfo, Depends(_existing)],
    last_event_id: Annotated[int, Header(ge=0, lt=2**63), Field(examples=[0])] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `id` grows, `event` is `state` or `progress`, `data` an EventInfo as JSON.

    Starts after `Last-Event-ID`, or with the first event; ends when the job has ended and all is told.
    """
    told, pause = last_event_id, SHORTEST
    while True:
        try:
            ended, news = await run_in_threadpool(_look, context, project, job.id, told)
        except Missing:
            return
        for event in news:
            yield ServerSentEvent(data=event, event=event.kind, id=str(event.id))
            told = event.id
        if ended and len(news) < BATCH:
            return
        if not news:
            await anyio.sleep(pause)
        pause = SHORTEST if news else min(1.5 * pause, LONGEST)

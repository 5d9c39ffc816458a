"""Pages of jobs: the list, and one job while it runs and after."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response

from sparring.contract.resources import EventInfo, JobInfo
from sparring.contract.states import FINAL, Progress
from sparring.service import jobs as api
from sparring.service.web.fields import Filled
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage import events, jobs

router = APIRouter(prefix="/jobs")

PAGE = 25
POINTS = 60
"""Points of the curve of progress."""


@router.get("")
def job_list(page: Seen, query: Annotated[api.JobQuery, Query()]) -> Response:
    """The newest first; in one state if asked."""
    context, project = page.context, page.project
    limit = min(query.limit, PAGE)
    found = jobs.list_jobs(context.engine, project, limit=limit, cursor=query.cursor, key=query.key, state=query.state)
    names = Names(context, project)
    lines = [names.job(api.noted(context, job)) for job in found.items]
    return page.show("jobs", lines=lines, next_cursor=found.next_cursor, state=query.state, states=jobs.count(context.engine, project))


@router.get("/{job_id}")
def job_page(page: Seen, job_id: str) -> Response:
    """Where a job stands; while it runs the page keeps itself up to date."""
    job = api.get_job(page.context, page.project, job_id)
    names = Names(page.context, page.project)
    made = [(ref, names.model(ref)) for ref in job.models]
    return page.show("job", made=made, names=names, settings=job.job.model_dump_json(indent=2), **_live(page, job, names))


@router.get("/{job_id}/live")
def job_live(page: Seen, job_id: str, request: Request) -> Response:
    """The part of the page that changes; once the job has ended the whole page is shown anew."""
    job = api.get_job(page.context, page.project, job_id)
    if job.state in FINAL:
        return Response(status_code=204, headers={"HX-Refresh": "true"})
    return page.show("job_live", **_live(page, job, Names(page.context, page.project)))


def _live(page: Seen, job: JobInfo, names: Names) -> dict[str, Any]:
    told = events.list_events(page.context.engine, page.project, job.id, limit=1000)
    return {"job": names.job(job), "live": job.state not in FINAL, "log": _log(told), "pace": pace(told, job.attempt)}


def _log(told: Sequence[EventInfo]) -> list[EventInfo]:
    """Changes of state, and the first event of each phase; the newest first."""
    lines: list[EventInfo] = []
    phase: tuple[int, str] | None = None
    for event in told:
        own = (event.attempt, event.progress.phase)
        if event.kind == "state" or own != phase:
            lines.append(event)
        phase = own
    return lines[::-1]


class Point(NamedTuple):
    """How far a job was."""

    seconds: float
    """Since the start of the attempt."""
    progress: Progress
    what: str
    """The phase, or how it ended."""


def pace(told: Sequence[EventInfo], attempt: int) -> list[Point]:
    """How far the attempt was at some POINTS of its progress, and at last where it ended."""
    own = [event for event in told if event.attempt == attempt]
    first = next((event.time for event in own if event.state == "running"), None)
    moved = [event for event in own if event.kind == "progress"]
    if first is None or not moved:
        return []
    step = max(1, len(moved) // POINTS)
    kept = moved[::step] if moved[-1] in moved[::step] else [*moved[::step], moved[-1]]
    points = [Point((event.time - first).total_seconds(), event.progress, event.progress.phase) for event in kept]
    ends = (event for event in own if event.kind == "state" and event.state in FINAL)
    return points + [Point((event.time - first).total_seconds(), event.progress, event.state.replace("_", " ")) for event in ends]


@router.post("/{job_id}/cancel")
def cancel_job(page: Seen, fields: Filled, job_id: str) -> Response:
    """As the API does."""
    api.cancel_job(page.context, page.project, job_id)
    return page.go(f"/jobs/{job_id}")


@router.post("/{job_id}/retry")
def retry_job(page: Seen, fields: Filled, job_id: str) -> Response:
    """As the API does."""
    api.retry_job(page.context, page.project, job_id)
    return page.go(f"/jobs/{job_id}")


@router.post("/{job_id}/delete")
def delete_job(page: Seen, fields: Filled, job_id: str) -> Response:
    """As the API does."""
    api.delete_job(page.context, page.project, job_id)
    return page.go("/jobs")

"""Jobs: taken on with 202, followed, cancelled, tried again, deleted."""

from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Response
from fastapi_problem.error import Problem
from pydantic import Field

from sparring.contract.jobs import LARGEST, Job
from sparring.contract.refs import Need
from sparring.contract.resources import JobInfo, Page
from sparring.contract.states import State
from sparring.service.auth import Project
from sparring.service.context import Context, Ctx
from sparring.service.examples import JOBS
from sparring.service.pages import Linking, PageQuery
from sparring.service.problems import Fault, invalid
from sparring.storage import jobs, uploads
from sparring.storage.errors import Missing

router = APIRouter(prefix="/jobs", tags=["jobs"])

IdempotencyKey = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]
"""Up to 200 printable ASCII characters."""


class JobQuery(PageQuery):
    """Which jobs to list."""

    key: IdempotencyKey | None = None
    """Idempotency key it was submitted under; for jobs submitted by the queue that is the RQ id."""
    state: State | None = None


def noted(context: Context, job: JobInfo) -> JobInfo:
    """The job, with what keeps it waiting if it is queued."""
    if job.state != "queued":
        return job
    alive = context.liveness.queues()
    if alive is None:
        return job.model_copy(update={"note": "the queue cannot be reached; the job is kept and starts when it is back"})
    return jobs.with_note(job, alive)


def _unknown(context: Context, project: str, job: Job, missing: Missing) -> Problem:
    """Says which of the uploads it needs are not there."""
    faults = []
    for need in (Need("model", job.model, "/model"), Need("dataset", job.data, "/data"), *job.needs().values()):
        find = uploads.get_model if need.kind == "model" else uploads.get_dataset
        try:
            find(context.engine, project, need.ref)
        except Missing as error:
            faults.append(Fault("body", need.pointer, str(error)))
    return invalid(*faults or [Fault("body", "", str(missing))], code="unknown-reference")


def take_on(context: Context, project: str, job: Job, key: str | None) -> JobInfo:
    """Accepts a job; 422 where something that it needs is not there."""
    try:
        return jobs.accept(context.engine, job, project=project, key=key)[0]
    except Missing as missing:
        raise _unknown(context, project, job, missing) from missing


@router.post("", status_code=202, summary="Submit a job", max_body_size=LARGEST)
def submit_job(
    context: Ctx,
    project: Project,
    job: Annotated[Job, Body(openapi_examples=JOBS)],
    response: Response,
    idempotency_key: Annotated[IdempotencyKey | None, Header()] = None,
) -> JobInfo:
    """Takes the job on: from here on it will run, whatever happens to the queue.

    Nobody asks the queue here: what may keep the job waiting is in the `note` of `GET /v1/jobs/{id}`.
    With an `Idempotency-Key` that was used for the same job before, answers with that job; for another job, 422.
    """
    accepted = take_on(context, project, job, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{accepted.id}"
    return accepted


@router.get("", summary="All jobs")
def list_jobs(context: Ctx, project: Project, query: Annotated[JobQuery, Query()], links: Linking) -> Page[JobInfo]:
    """The newest first; of one idempotency key or in one state if asked."""
    page = jobs.list_jobs(context.engine, project, limit=query.limit, cursor=query.cursor, key=query.key, state=query.state)
    links.to_next(page)
    return page.model_copy(update={"items": tuple(noted(context, job) for job in page.items)})


@router.get("/{job_id}", summary="One job")
def get_job(context: Ctx, project: Project, job_id: str) -> JobInfo:
    """Where it stands; `note` says what keeps a queued job waiting."""
    return noted(context, jobs.get(context.engine, project, job_id))


@router.post("/{job_id}/cancel", summary="Cancel a job")
def cancel_job(context: Ctx, project: Project, job_id: str) -> JobInfo:
    """A queued job ends at once, a running one at its worker's next sign of life; 409 when it has ended already."""
    return jobs.cancel(context.engine, project, job_id)


@router.post("/{job_id}/retry", summary="Try a job again")
def retry_job(context: Ctx, project: Project, job_id: str) -> JobInfo:
    """Queues a failed, cancelled or timed out job anew; 409 for any other."""
    return jobs.retry(context.engine, project, job_id)


@router.delete("/{job_id}", status_code=204, summary="Delete a job")
def delete_job(context: Ctx, project: Project, job_id: str) -> None:
    """Forgets the job with its report; 409 while it is queued or running."""
    jobs.delete(context.engine, project, job_id)

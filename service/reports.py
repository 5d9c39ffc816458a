"""What a job left behind: its report in the form the caller wants, its rows, every artifact."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse
from fastapi_problem.error import Problem

from sparring.contract.resources import ArtifactInfo, JobInfo
from sparring.contract.retrained import AnyReport
from sparring.contract.states import FINAL
from sparring.service import files
from sparring.service.auth import Project
from sparring.service.context import Context, Ctx
from sparring.service.problems import problem
from sparring.storage import jobs

router = APIRouter(prefix="/jobs/{job_id}", tags=["reports"])

FORMS = {"application/json": "report.json", "text/html": "report.html", "text/markdown": "report.md"}
"""Forms of the report by media type; the first is the default."""
MEDIA_TYPES = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
HTML_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}

_TEXT = {"schema": {"type": "string"}}
_IN_JSON: dict[str, Any] = {"model": AnyReport, "description": "The report"}
_IN_HTML = {"content": {"text/html": _TEXT}, "description": "The report as one page without scripts"}
_IN_MARKDOWN = {"content": {"text/markdown": _TEXT}, "description": "The report"}
_IN_ANY = {**_IN_JSON, "content": {"text/html": _TEXT, "text/markdown": _TEXT}}
_IN_CSV = {"content": {"text/csv": _TEXT}, "description": "One line per row and threat"}


def absent(job: JobInfo, name: str) -> Problem:
    """Why a job has no such file: it has not ended, it failed, or it leaves none."""
    if job.state not in FINAL:
        hint = f"Follow it until it has ended: GET /v1/jobs/{job.id}/events, or sparring jobs watch {job.id}"
        return problem(409, "not-finished", f"{job.id} is {job.state}: there is no {name} yet", hint=hint)
    if job.state != "succeeded":
        why = f": {job.reason.message}" if job.reason else ""
        hint = (job.reason.hint if job.reason else "") or f"Retry it: POST /v1/jobs/{job.id}/retry, or sparring jobs retry {job.id}"
        return problem(409, "no-report", f"{job.id} {job.state.replace('_', ' ')}{why}", hint=hint)
    known = ", ".join(artifact.name for artifact in job.artifacts)
    return problem(404, "not-found", f"{job.id} left no {name[:100]!r}", hint=f"It left {known}")


def send(context: Context, project: str, request: Request, job_id: str, name: str, *, shown: bool = False) -> Response:
    """An artifact by name: shown in a browser where that is safe and wanted, else saved. Raises 404 and 409."""
    job = jobs.get(context.engine, project, job_id)
    found = next((artifact for artifact in job.artifacts if artifact.name == name), None)
    if found is None:
        raise absent(job, name)
    suffix = name.rpartition(".")[2]
    media_type = MEDIA_TYPES.get(suffix, "application/octet-stream")
    headers = {**(HTML_POLICY if suffix == "html" else {}), "Vary": "Accept"}
    return files.send(context, request, found.sha256, media_type, download_as=None if shown else f"{job_id}-{name}", headers=headers)


def preferred(accept: str) -> str | None:
    """The form of the report that an `Accept` header likes best; None where it likes none of ours."""
    wishes: list[tuple[float, str]] = []
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        wishes.append((float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0, media.lower()))
    for liking, media in sorted(wishes, key=lambda wish: -wish[0]):
        for form, name in FORMS.items():
            if liking > 0 and media in (form, "*/*", form.partition("/")[0] + "/*"):
                return name
    return None


@router.get("/report", summary="The report, by Accept", response_class=FileResponse, responses={200: _IN_ANY})
def get_report(context: Ctx, project: Project, job_id: str, request: Request, accept: Annotated[str, Header()] = "*/*") -> Response:
    """JSON unless `Accept` prefers text/html or text/markdown. 409 while the job is not finished, and when it failed."""
    name = preferred(accept)
    if name is None:
        raise problem(406, "not-acceptable", f"The report comes as {', '.join(FORMS)}, not as {accept[:200]}")
    return send(context, project, request, job_id, name, shown=True)


@router.get("/report.json", summary="The report as JSON", response_class=FileResponse, responses={200: _IN_JSON})
def get_report_json(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """Counts with all that is needed to believe and to repeat them."""
    return send(context, project, request, job_id, "report.json", shown=True)


@router.get("/report.html", summary="The report as a page", response_class=FileResponse, responses={200: _IN_HTML})
def get_report_html(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """Self-contained, without scripts: it may be mailed, kept and printed."""
    return send(context, project, request, job_id, "report.html", shown=True)


@router.get("/report.md", summary="The report as Markdown", response_class=FileResponse, responses={200: _IN_MARKDOWN})
def get_report_md(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """For a job summary or a pull request."""
    return send(context, project, request, job_id, "report.md", shown=True)


@router.get("/rows", summary="Row by row, as CSV", response_class=FileResponse, responses={200: _IN_CSV})
def get_rows(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """One line per row and threat, misclassified rows included."""
    return send(context, project, request, job_id, "rows.csv")


@router.get("/rows.csv", summary="Row by row, as CSV", response_class=FileResponse, responses={200: _IN_CSV})
def get_rows_csv(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """One line per row and threat, misclassified rows included."""
    return send(context, project, request, job_id, "rows.csv")


@router.get("/rows.parquet", summary="Row by row, as Parquet", response_class=FileResponse, responses={200: files.BINARY})
def get_rows_parquet(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """The same columns as the CSV, typed."""
    return send(context, project, request, job_id, "rows.parquet")


@router.get("/examples.npz", summary="The broken rows", response_class=FileResponse, responses={200: files.BINARY})
def get_examples(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """`row`, `threat` (index in the report) and `x` of every broken row, in units and layout of the data."""
    return send(context, project, request, job_id, "examples.npz")


@router.get("/crafted.npz", summary="The crafted dataset", response_class=FileResponse, responses={200: files.BINARY})
def get_crafted(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """Of a job that crafts: `x`, the strongest point found for every row, and its label `y`."""
    return send(context, project, request, job_id, "crafted.npz")


@router.get("/test.npz", summary="The test rows", response_class=FileResponse, responses={200: files.BINARY})
def get_test_rows(context: Ctx, project: Project, job_id: str, request: Request) -> Response:
    """Of a job that retrains: the rows that were held out and measured, for the next comparison."""
    return send(context, project, request, job_id, "test.npz")


@router.get("/artifacts", summary="All artifacts")
def list_artifacts(context: Ctx, project: Project, job_id: str) -> tuple[ArtifactInfo, ...]:
    """Files the job left; none before it has ended."""
    return jobs.get(context.engine, project, job_id).artifacts


@router.get("/artifacts/{name}", summary="Download an artifact", response_class=FileResponse, responses={200: files.BINARY})
def get_artifact(context: Ctx, project: Project, job_id: str, name: str, request: Request) -> Response:
    """One file by name, such as `examples.npz`."""
    return send(context, project, request, job_id, name)

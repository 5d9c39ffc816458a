"""Two reports side by side, row by row."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from markupsafe import Markup

from sparring.contract.report import Report
from sparring.reports import compare_html
from sparring.reports.compare import Incomparable, Told, compared
from sparring.reports.pictures import PICTURES, Album, Unreadable
from sparring.reports.rows import outcomes, read_csv
from sparring.service import jobs as api
from sparring.service.web.measured import artifact, finished, report_of
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage import zips
from sparring.storage.errors import Missing

router = APIRouter()

JobId = Annotated[str, Query(max_length=100)]


@router.get("/compare")
def compare_page(page: Seen, before: JobId = "", after: JobId = "") -> Response:
    """The choice of two evaluations, and what changed from one to the other."""
    names = Names(page.context, page.project)
    choices = [names.job(job) for job, report in finished(page.context, page.project) if report.job.kind == "evaluate"]
    changed: tuple[Markup, ...] = ()
    fault = ""
    if before and after:
        try:
            with ExitStack() as held:
                changed = _changed(*(_told(page, each, held) for each in (before, after)))
        except (Incomparable, Missing) as error:
            fault = str(error)
    chosen = [names.job(api.get_job(page.context, page.project, each)) for each in (before, after)] if changed else []
    status = 422 if fault else 200
    said = {"changed": changed, "chosen": chosen, "statistics": compare_html.STATISTICS}
    return page.show("compare", status, choices=choices, before=before, after=after, fault=fault, **said)


def _changed(before: Told, after: Told) -> tuple[Markup, ...]:
    """Parts of the page: the statistics, and the rows that flipped. Raises Incomparable."""
    found = compared(before, after)
    table = Markup(compare_html.table(found))
    try:
        return table, Markup(compare_html.pictures(before, after, found))
    except Unreadable:
        return table, Markup(compare_html.pictures(before._replace(album=None), after._replace(album=None), found))


def _told(page: Seen, job_id: str, held: ExitStack) -> Told:
    """A report with its rows and pictures. Raises Missing, and Incomparable where the job left nothing that can be compared."""
    job = api.get_job(page.context, page.project, job_id)
    report, rows = report_of(page.context, job), artifact(page.context, job, "rows.csv")
    if not isinstance(report, Report) or rows is None:
        raise Incomparable(f"{job.id} has no report with rows: choose an evaluation that has succeeded")
    with rows.open(encoding="utf-8", newline="") as file:
        lines = read_csv(file)
    return Told(report, outcomes(lines, report), lines, _album(artifact(page.context, job, PICTURES), held))


def _album(path: Path | None, held: ExitStack) -> Album | None:
    """What a runner left is a stranger's: its directory is looked at first. None where it cannot be read; figures need no pictures."""
    if path is None:
        return None
    try:
        zips.directory(path)
        return held.enter_context(Album(path))
    except (zips.Rejected, Unreadable):
        return None

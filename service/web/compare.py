"""Two reports side by side, row by row."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from sparring.contract.report import Report
from sparring.reports.compare import Compared, Incomparable, Told, compared
from sparring.reports.rows import outcomes, read_csv
from sparring.service import jobs as api
from sparring.service.web.measured import artifact, finished, report_of
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage.errors import Missing

router = APIRouter()

SHOWN = 40
"""Flipped rows that are listed."""

JobId = Annotated[str, Query(max_length=100)]


@router.get("/compare")
def compare_page(page: Seen, before: JobId = "", after: JobId = "") -> Response:
    """The choice of two evaluations, and what changed from one to the other."""
    names = Names(page.context, page.project)
    choices = [names.job(job) for job, report in finished(page.context, page.project) if report.job.kind == "evaluate"]
    found: tuple[Compared, ...] = ()
    fault = ""
    if before and after:
        try:
            found = compared(_told(page, before), _told(page, after))
        except (Incomparable, Missing) as error:
            fault = str(error)
    chosen = [names.job(api.get_job(page.context, page.project, each)) for each in (before, after)] if found else []
    status = 422 if fault else 200
    return page.show("compare", status, choices=choices, before=before, after=after, found=found, fault=fault, chosen=chosen, most=SHOWN)


def _told(page: Seen, job_id: str) -> Told:
    """A report with its rows. Raises Missing, and Incomparable where the job left nothing that can be compared."""
    job = api.get_job(page.context, page.project, job_id)
    report, rows = report_of(page.context, job), artifact(page.context, job, "rows.csv")
    if not isinstance(report, Report) or rows is None:
        raise Incomparable(f"{job.id} has no report with rows: choose an evaluation that has succeeded")
    with rows.open(encoding="utf-8", newline="") as file:
        return Told(report, outcomes(read_csv(file), report))

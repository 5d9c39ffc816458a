"""The report of a job: its numbers, the whole of it in a frame, and everything to download."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from sparring.contract.report import Report
from sparring.contract.resources import JobInfo
from sparring.contract.retrained import RetrainReport
from sparring.reports import retrained_text
from sparring.reports.bundle import ARTIFACTS, BUNDLE, EXTRA, pack
from sparring.service import jobs as api
from sparring.service import reports
from sparring.service.web.measured import artifact, report_of
from sparring.service.web.names import Names
from sparring.service.web.view import Seen
from sparring.storage import uploads
from sparring.storage.errors import Missing

router = APIRouter(prefix="/jobs/{job_id}")

DOWNLOADS = {
    "report.html": "the report as one file, without scripts",
    "report.json": "all counts, to compute with",
    "report.md": "for a pull request",
    "rows.csv": "one line per row and threat",
    "rows.parquet": "the same, typed",
    "examples.npz": "the witnesses: every broken row as it was broken",
    "pictures.zip": "broken rows to look at: as they are, what was added, and with it",
    "crafted.npz": "the crafted dataset",
    "test.npz": "the rows that were held out and measured",
}
"""What each artifact is, the first ones first."""
_PIECE = 1 << 18
_HELD = 16 << 20
"""Bytes of a bundle that are held in memory; a larger one is written to a temporary file."""


@router.get("/report")
def report_page(page: Seen, job_id: str) -> Response:
    """The report; 409 while there is none."""
    job = api.get_job(page.context, page.project, job_id)
    report = report_of(page.context, job)
    if report is None:
        raise reports.absent(job, "report.json")
    retrained = isinstance(report, RetrainReport)
    known = {each.name: each for each in job.artifacts}
    names = [*(name for name in DOWNLOADS if name in known), *(name for name in known if name not in DOWNLOADS)]
    return page.show(
        "report",
        job=Names(page.context, page.project).job(job),
        report=report,
        retrained=retrained,
        comparison=retrained_text.comparison(report) if isinstance(report, RetrainReport) else None,
        downloads=[(known[name], DOWNLOADS.get(name, "")) for name in names],
        bundled=isinstance(report, Report) and bool(_members(page, job, report)),
        framed=artifact(page.context, job, "report.html") is not None,
    )


@router.get("/files/{name}")
def job_file(page: Seen, job_id: str, name: str, request: Request, shown: bool = False) -> Response:
    """A file that the job left; the report is shown where it is to be looked at, the rest is saved."""
    safe = name == "report.html"
    return reports.send(page.context, page.project, request, job_id, name, shown=shown and safe)


@router.get(f"/{BUNDLE}")
def job_bundle(page: Seen, job_id: str) -> Response:
    """What `sparring verify` checks: the report with its rows, the witnesses, model and data."""
    job = api.get_job(page.context, page.project, job_id)
    report = report_of(page.context, job)
    files = _members(page, job, report) if isinstance(report, Report) else {}
    if not files:
        raise Missing(f"there is no {BUNDLE} of {job_id[:80]!r}: its report, its model or its data is not there")
    held: IO[bytes] = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115  # closed when it has been sent
    pack(job.id, files, held)
    size = held.tell()
    held.seek(0)
    headers = {"Content-Disposition": f'attachment; filename="{job.id}-{BUNDLE}"', "Content-Length": str(size)}
    return StreamingResponse(_pieces(held), media_type="application/zip", headers=headers)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _members(page: Seen, job: JobInfo, report: Report) -> dict[str, Path]:
    """The files of a bundle by name; none where one of them is gone."""
    found: dict[str, Path | None] = {name: artifact(page.context, job, name) for name in ARTIFACTS}
    found[f"data.{report.data.format}"] = _blob(page, report.data.sha256, model=False)
    if report.model.format != "endpoint":
        found[f"model.{report.model.format}"] = _blob(page, report.model.sha256, model=True)
    whole = {name: path for name, path in found.items() if path}
    extra = {name: path for name in EXTRA if (path := artifact(page.context, job, name))}
    return whole | extra if len(whole) == len(found) else {}


def _blob(page: Seen, sha256: str, *, model: bool) -> Path | None:
    """Bytes that were uploaded, as long as the project has them."""
    try:
        find = uploads.get_model if model else uploads.get_dataset
        find(page.context.engine, page.project, sha256)
    except Missing:
        return None
    path = page.context.folder.local_path(sha256)
    return path if path.is_file() else None

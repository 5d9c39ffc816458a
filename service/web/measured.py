"""What finished jobs found out, for pages that show it beside something else."""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sparring.contract.jobs import Evaluate
from sparring.contract.report import Report, Score
from sparring.contract.resources import JobInfo, ModelInfo
from sparring.contract.retrained import REPORT, RetrainReport
from sparring.contract.verdict import suite_version
from sparring.reports.text import smoothed, threat_text
from sparring.service.context import Context
from sparring.storage import jobs, uploads
from sparring.storage.errors import Missing

RECENT = 50
"""Jobs that are looked through at most."""


class Measured(NamedTuple):
    """A model under one threat."""

    job: str
    when: datetime
    threat: str
    """`linf 8/255`."""
    attacks: str
    """The suite with its version, or that the job listed attacks of its own."""
    data: str
    """Name of the dataset."""
    clean: Score
    robust: Score
    trust: str


class Estimate(NamedTuple):
    """Seconds a job will take, as far as former jobs tell."""

    seconds: float
    job: str
    """The former job."""
    like: str
    """In what it was alike."""


@lru_cache(maxsize=64)
def _parsed(path: Path) -> Report | RetrainReport:
    # A path among the artifacts names its content, which never changes.
    return REPORT.validate_json(path.read_bytes())


def artifact(context: Context, job: JobInfo, name: str) -> Path | None:
    """Where a file that a job left lies; None if there is none."""
    found = next((each for each in job.artifacts if each.name == name), None)
    path = context.folder.local_path(found.sha256) if found else None
    return path if path and path.is_file() else None


def report_of(context: Context, job: JobInfo) -> Report | RetrainReport | None:
    """The report of a job; None if it has none."""
    path = artifact(context, job, "report.json")
    return _parsed(path) if path else None


def finished(
    context: Context, project: str, *, model: str | None = None, data: str | None = None
) -> Iterator[tuple[JobInfo, Report | RetrainReport]]:
    """The newest jobs that succeeded, with their reports."""
    page = jobs.list_jobs(context.engine, project, limit=RECENT, state="succeeded", model=model, data=data)
    for job in page.items:
        if report := report_of(context, job):
            yield job, report


def _lines(job: JobInfo, report: Report) -> Iterator[Measured]:
    listed = suite_version(report.job) if isinstance(report.job, Evaluate) else report.job.kind
    for result in report.threats:
        when = job.finished or job.created
        name = threat_text(result.threat)
        yield Measured(job.id, when, name, listed, report.data.name, report.clean, result.worst, result.trust.level)


def history(context: Context, project: str, model: ModelInfo) -> tuple[Measured, ...]:
    """Every measurement of a model, oldest first: its evaluations, and as what a retraining found it or left it.

    What was measured of the smoothed model says nothing of the model itself.
    """
    found = [each for job in _measuring(context, project, model) for each in _measured(context, job, model)]
    return tuple(sorted(found, key=lambda each: (each.when, each.threat)))


def weakest(context: Context, project: str, model: ModelInfo) -> Measured | None:
    """The lowest robust accuracy of the last job that measured it; None if none did. No other job's report is read."""
    for job in _measuring(context, project, model):
        if found := tuple(_measured(context, job, model)):
            return min(found, key=lambda each: each.robust.rate)
    return None


def _measuring(context: Context, project: str, model: ModelInfo) -> tuple[JobInfo, ...]:
    """The jobs that may have measured a model, the last one first."""
    own = jobs.list_jobs(context.engine, project, limit=RECENT, state="succeeded", model=model.id).items
    maker = uploads.maker(context.engine, project, model.id) if model.lineage else None
    made = (jobs.get(context.engine, project, maker),) if maker else ()
    found = [job for job in (*own, *made) if job.job.kind in ("evaluate", "certify", "retrain")]
    return tuple(sorted(found, key=lambda job: job.finished or job.created, reverse=True))


def _measured(context: Context, job: JobInfo, model: ModelInfo) -> Iterator[Measured]:
    """What a job measured of the model."""
    report = report_of(context, job)
    if isinstance(report, Report):
        yield from () if smoothed(report) else _lines(job, report)
    elif report and model.id not in job.models:
        yield from _lines(job, report.before)
    elif report and model.lineage:
        for result in report.each:
            if result.defense == model.lineage.recipe.defense:
                yield from _lines(job, result.after)


def ancestors(context: Context, project: str, model: ModelInfo) -> tuple[ModelInfo, ...]:
    """The models it was trained from, the first one first, as far as they are still there."""
    line: list[ModelInfo] = []
    while model.lineage and len(line) < RECENT:
        try:
            model = uploads.get_model(context.engine, project, model.lineage.parent)
        except Missing:
            break
        line.insert(0, model)
    return tuple(line)

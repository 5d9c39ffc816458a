"""How long a job will take: what it will do, at the pace at which a former job did the like."""

from collections.abc import Iterator

from sparring.contract.attacks import UAP, AttackSpec, Substitute, Transfer
from sparring.contract.jobs import AnyJob, Attacking, Certify, Evaluate
from sparring.contract.report import Report
from sparring.contract.resources import JobInfo
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import RetrainReport
from sparring.reports.text import duration
from sparring.service.context import Context
from sparring.service.web.measured import Estimate, finished

UNKNOWN = "No estimate yet: no job like this has run here."
_SETTINGS = ("steps", "iterations", "draws", "queries")


_Run = Attacking | Retrain
"""What a report says was run: certifying is an evaluation."""


def passes(attack: AttackSpec) -> int:
    """Times an attack takes a row through the model at most."""
    if isinstance(attack, (Transfer, Substitute)):
        return passes(attack.attack)
    if isinstance(attack, UAP):  # its steps are taken beforehand
        return 1
    each = max((int(getattr(attack, name, 0) or 0) for name in _SETTINGS), default=0) or 1
    return each * int(getattr(attack, "restarts", 1) or 1) * max(1, int(getattr(attack, "targets", 0) or 0))


def work(job: _Run, rows: int) -> float:
    """Passes of one row through the model that a job takes at most."""
    if isinstance(job, Retrain):
        return rows * job.training.epochs * sum(defense.gradients for defense in job.defenses)
    return rows * float(sum(passes(attack) for threat in job.threats for attack in job.against(threat)))


def estimated(context: Context, project: str, asked: AnyJob, model: str, data: str) -> Estimate | None:
    """What the most similar former job of the project suggests; `model` and `data` are ids. None where none tells."""
    job = asked.evaluation() if isinstance(asked, Certify) else asked
    there = known_rows(context, project, data)
    rows = min(job.rows, there) if job.rows and there else job.rows or there
    former = sorted(_former(context, project, job, model), key=lambda each: -each[0])
    if rows is None or not former:
        return None
    closeness, done, own, report = former[0]
    seconds = report.cost.wall_seconds * work(job, rows) / max(1.0, work(own, _rows_of(report)))
    like = (
        "another model, other attacks",
        "another model, the same attacks",
        "the same model, other attacks",
        "the same model and attacks",
    )
    return Estimate(seconds, done.id, like[closeness])


def known_rows(context: Context, project: str, data: str) -> int | None:
    """Rows of a dataset, as a report on it tells; None where there is none."""
    return next((report.data.shape[0] for _, report in finished(context, project, data=data)), None)


def words(found: Estimate | None) -> str:
    """The estimate in a sentence."""
    if found is None:
        return UNKNOWN
    return f"About {duration(max(1.0, found.seconds))}, at the pace of {found.job} ({found.like}); rows that break early make it shorter."


def _rows_of(report: Report | RetrainReport) -> int:
    return min(report.job.rows or report.data.shape[0], report.data.shape[0]) if isinstance(report, RetrainReport) else report.clean.total


def _former(context: Context, project: str, job: _Run, model: str) -> Iterator[tuple[int, JobInfo, _Run, Report | RetrainReport]]:
    """Jobs of the same kind, each with how close it is."""
    for done, report in finished(context, project):
        own = report.job
        if _sort(own) == _sort(job):
            yield 2 * (report.model.id == model) + (_attacks(own) == _attacks(job)), done, own, report


def _sort(job: _Run) -> tuple[str, ...]:
    """Jobs of one sort do the same beside their attacks."""
    return (job.kind, job.certificate.kind) if isinstance(job, Evaluate) and job.certificate else (job.kind,)


def _attacks(job: _Run) -> object:
    if isinstance(job, Retrain):
        return tuple(each.kind for each in job.defenses)
    return (job.suite, job.attacks) if isinstance(job, Evaluate) else job.attack

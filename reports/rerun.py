"""The command that runs a job again, as html and markdown show it."""

import shlex
from collections.abc import Iterable

from sparring.contract.corruptions import CORRUPTIONS
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import Report
from sparring.contract.specs import ModelSpec
from sparring.reports.text import attack_word, certificate_word


def _job_flags(job: Evaluate | Craft) -> Iterable[str]:
    for threat in job.threats:
        yield from ("--threat", f"{threat.norm}:{threat.eps}{':targeted' if threat.targeted else ''}")
    for attack in job.attacks if isinstance(job, Evaluate) else (job.attack,):
        yield from ("--attack", attack_word(attack))
    if isinstance(job, Evaluate):
        if job.suite:
            yield from ("--suite", job.suite)
        if job.knowledge != Evaluate.model_fields["knowledge"].default:
            for known in sorted(job.knowledge):
                yield from ("--knowledge", known)
        if job.certificate:
            yield from ("--method", certificate_word(job.certificate))
        elif job.cascade is not None:
            yield "--cascade" if job.cascade else "--no-cascade"
        if job.skip_proved:
            yield "--skip-proved"
        asked = ("all",) if job.corruptions == CORRUPTIONS else job.corruptions
        for corruption in asked:
            yield from ("--corruption", corruption)
        for earlier in ("none",) if job.replay == () else job.replay or ():
            yield from ("--replay", earlier)
        if job.precision != "exact":
            yield from ("--precision", job.precision)
    if job.training:
        yield from ("--training", job.training)
    if job.rows:
        yield from ("--rows", str(job.rows))
    yield from ("--seed", str(job.seed))
    if job.budget:
        yield from ("--asked", str(job.budget.asked))
        if job.budget.sent is not None:
            yield from ("--sent", str(job.budget.sent))
    if job.device != "auto":
        yield from ("--device", job.device)
    if job.timeout != type(job).model_fields["timeout"].default:
        yield from ("--timeout", str(job.timeout))
    if isinstance(job, Craft):
        yield from ("-o", "crafted.npz")


def _upload_flags(report: Report) -> Iterable[str]:
    model, data = report.model.spec if report.model.spec.endpoint is None else ModelSpec(), report.data.spec
    if model.arch:
        yield from ("--arch", model.arch)
    for flag, channels, neutral in (("--mean", model.mean, (0.0,)), ("--std", model.std, (1.0,))):
        if model.mean or model.std:
            yield from (flag, ",".join(map(repr, channels or neutral)))
    if model.layout:
        yield from ("--layout", model.layout)
    if model.classes:
        yield from ("--classes", str(model.classes))
    if data.bounds is not None:
        yield from ("--bounds", data.bounds if data.bounds == "none" else ",".join(map(repr, data.bounds)))
    if data.scale:
        yield from ("--scale", repr(data.scale))
    if data.layout:
        yield from ("--data-layout", data.layout)


def _verb(job: Evaluate | Craft) -> str:
    return "certify" if isinstance(job, Evaluate) and job.certificate else job.kind


def command(report: Report) -> str:
    """The `sparring` command that runs the job again where the uploads still are."""
    return shlex.join(["sparring", _verb(report.job), report.job.model, report.job.data, *_job_flags(report.job)])


def command_from_files(report: Report) -> str:
    """The `sparring` command that runs the job again from the files, wherever they are; their names are those they were uploaded under.

    An endpoint is no file: it stays the one that is registered.
    """
    model = report.model.name if report.model.spec.endpoint is None else report.model.id or report.model.sha256
    files = (f"./{name}" if name.startswith("-") else name for name in (model, report.data.name))
    return shlex.join(["sparring", _verb(report.job), *files, *_upload_flags(report), *_job_flags(report.job)])

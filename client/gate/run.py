"""A policy carried out: uploads, one evaluation, a verdict. What fails on the way is a verdict too, and never a pass."""

import hashlib
import re
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from sparring import local
from sparring.commands.evaluate import Sides
from sparring.contract.gate import DataSource, ModelSource
from sparring.contract.gates import GateRun
from sparring.contract.jobs import LARGEST, Evaluate
from sparring.contract.report import DataFacts
from sparring.contract.resources import DatasetInfo, JobInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.verdict import Baseline, Baselines, ExitCode, RuleResult, Subject, Verdict, exit_code, suite_version
from sparring.errors import ApiError, JobFailed, SparringError, UsageProblem
from sparring.gate import early
from sparring.gate.baselines import accepted, load, save
from sparring.gate.judge import Evidence, judge, unjudged
from sparring.gate.policy import Read
from sparring.outputs import Output, write
from sparring.paths import check_readable
from sparring.progress import cancelled_if_interrupted, follow
from sparring.reports import text
from sparring.sdk import Client
from sparring.show import say
from sparring.told import of_job

Spec = TypeVar("Spec", ModelSpec, DataSpec)

NOTHING = "empty"
"""Detail of the reason by which a job fails on data without rows."""


class Wanted(NamedTuple):
    """What is asked of one run of a gate."""

    read: Read
    model: str | None = None
    """Another model file in place of the policy's, declared as that is."""
    only: Collection[str] = ()
    """Rules to apply; all unless given."""
    job: str | None = None
    """An evaluation that has been run already."""
    files: tuple[Output, ...] = ()
    """What to keep of the evaluation."""
    keep: bool = True
    """Leave the verdict with the service."""


def decide(wanted: Wanted, baselines: Baselines, today: date | None = None) -> Verdict:
    """The verdict of a gate.

    Raises:
        UsageProblem: the policy names files or uploads that are not there, or a job that is not what it asks for.
    """
    today = today or datetime.now(UTC).date()
    sides = _sides(wanted)
    try:
        with local.service(_device(wanted)) as client:
            verdict = _judged(client, wanted, sides, baselines, today)
            if wanted.keep:
                _keep(client, wanted, verdict)
            return verdict
    except UsageProblem:
        raise
    except SparringError as error:
        return _unevaluated(wanted, error, today)
    except Exception as error:  # a gate that broke must not look like one that found something, or like one that passed
        hint = "This is a fault of Sparring; please report it with the version of both sides"
        return _unevaluated(wanted, SparringError(f"The gate stopped on an unexpected {type(error).__name__}: {error}", hint), today)


def _judged(client: Client, wanted: Wanted, sides: Sides, baselines: Baselines, today: date) -> Verdict:
    try:
        evidence = _evidence(client, wanted, sides, baselines)
    except JobFailed as error:
        return _unevaluated(wanted, error, today)
    rules = judge(wanted.read, evidence, baselines, baseline_name(wanted), today, wanted.only)
    return _verdict(wanted, rules, exit_code(rules), evidence)


def _keep(client: Client, wanted: Wanted, verdict: Verdict) -> None:
    """Leave the verdict with the service, for its history. What is found does not depend on whether that can be done."""
    try:
        client.gates.add(GateRun(name=baseline_name(wanted), policy=wanted.read.policy, verdict=verdict))
    except (SparringError, ValidationError) as error:
        say(f"the service does not keep the verdict: {error}")


def accept(wanted: Wanted, file: Path, branch: str | None) -> tuple[Baseline, ...]:
    """Run the evaluation on every row, and keep what became of each in the file and at the service.

    Raises:
        SparringError: there is no evaluation; UsageProblem as `decide` does.
    """
    kept = load(file)
    with local.service(_device(wanted)) as client:
        evidence = _evidence(client, wanted, _sides(wanted), None)
        fresh = accepted(wanted.read.policy, evidence, baseline_name(wanted), branch)
        save(file, kept.replaced(fresh))
        client.baselines.accept(fresh)
    return fresh


def _device(wanted: Wanted) -> str:
    return wanted.read.policy.evaluate.device or "auto"


def baseline_name(wanted: Wanted) -> str:
    """What baselines of the model are kept under."""
    source = wanted.read.policy.model
    return source.name or re.sub(r"[^\w .+\-]", "_", Path(source.path or source.ref or "").name)[:100]


def baseline_file(read: Read) -> Path:
    """Where a policy keeps its baselines."""
    return read.folder / read.policy.baseline.file


def _sides(wanted: Wanted) -> Sides:
    policy, folder = wanted.read.policy, wanted.read.folder
    for name, path in (("model", None if wanted.model else policy.model.path), ("data", policy.data.path)):
        if path:
            check_readable(folder / path, f"{wanted.read.path}:{wanted.read.line(name, 'path')}: {name}: ")
    model = wanted.model or policy.model.ref or str(folder / (policy.model.path or ""))
    data = policy.data.ref or str(folder / (policy.data.path or ""))
    at = f"{wanted.read.path}:{wanted.read.line('data')}"
    how = f"bounds: [0, 1] under data ({at}) for images in [0, 1], bounds: none where any real number is legal"
    return Sides(model, data, _spec(ModelSpec, policy.model), _spec(DataSpec, policy.data), bounds_by=how)


def _spec(kind: type[Spec], source: ModelSource | DataSource) -> Spec | None:
    """What a policy declares about a file."""
    given = {name: getattr(source, name) for name in source.model_fields_set & set(kind.model_fields)}
    return kind.model_validate(given) if given else None


def _evidence(client: Client, wanted: Wanted, sides: Sides, baselines: Baselines | None) -> Evidence:
    """With baselines it may end early, if the policy says so."""
    if wanted.job:
        info = _known(client, wanted, wanted.job, sides, baselines)
    else:
        given = sides.upload(client)
        stop = _stop(wanted, baselines, lambda: client.datasets.get(given["data"]))
        job = client.jobs.submit(_fitting(wanted.read.policy.job(**given, stop=stop)))
        with cancelled_if_interrupted(client, job.id):
            info = follow(client, job.id)
    write(client, info, wanted.files)
    found = of_job(client, info.id)
    return Evidence(found.report, found.rows, info.id)


def _stop(wanted: Wanted, baselines: Baselines | None, data: Callable[[], DatasetInfo | DataFacts]) -> early.Stop:
    """When the evaluation ends."""
    if baselines is None or wanted.read.policy.evaluate.stop != "early":
        return "full"
    known = data()
    return early.stop(wanted.read.policy, baselines, baseline_name(wanted), known.sha256, known.spec, wanted.only)


def _fitting(job: Evaluate) -> Evaluate:
    """The job itself. UsageProblem where its baselines are more than a service takes."""
    size = len(job.model_dump_json())
    if size > LARGEST:
        said = f"The evaluation is to end early and carries the rows of its baselines: {text.size(size)}, but a service takes"
        hint = "Leave `stop: early` out of the policy, evaluate fewer rows, or apply fewer rules with a max_drop at once (--rule)"
        raise UsageProblem(f"{said} {text.size(LARGEST)}", hint)
    return job


def _known(client: Client, wanted: Wanted, job_id: str, sides: Sides, baselines: Baselines | None) -> JobInfo:
    """An evaluation that was run already. UsageProblem unless it is the very one the policy asks for."""
    info = client.jobs.get(job_id)
    if info.state != "succeeded":
        raise UsageProblem(f"{job_id} is {info.state}: it has no report", "Name a job that has succeeded, or leave --job out")
    report = client.jobs.report(job_id)
    asked = wanted.read.policy.job(info.job.model, info.job.data, _stop(wanted, baselines, lambda: client.datasets.get(info.job.data)))
    theirs = info.job.model_dump(mode="json")
    if other := [name for name, value in asked.model_dump(mode="json").items() if theirs.get(name) != value]:
        raise UsageProblem(f"{job_id} is not what the policy asks for: its {', '.join(other)} differ", "Leave --job out to run it anew")
    for what, ref, path, facts in (
        ("model", sides.model_ref, sides.model, report.model),
        ("data", sides.data_ref, sides.data, report.data),
    ):
        digest = (ref or _digest(Path(path))).removeprefix("sha256:")
        if digest not in (facts.sha256, facts.id):
            raise UsageProblem(f"{job_id} was run on another {what} than {path}", "Leave --job out to run it anew")
    return info


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unevaluated(wanted: Wanted, error: SparringError, today: date) -> Verdict:
    empty = isinstance(error, JobFailed) and error.detail == NOTHING
    rules = unjudged(wanted.read, "there is nothing to evaluate" if empty else "the evaluation failed", today)
    hint = local.key_hint() if isinstance(error, ApiError) and error.status == 401 else error.hint
    return _verdict(wanted, rules, 3 if empty else 2, job=getattr(error, "job", ""), reason=error.message, hint=hint)


def _verdict(
    wanted: Wanted, rules: tuple[RuleResult, ...], code: ExitCode, evidence: Evidence | None = None, job: str = "", **why: str
) -> Verdict:
    read = wanted.read
    common = {"exit_code": code, "policy": _shown(read.path), "policy_sha256": read.sha256, "rules": rules}
    if evidence is None:
        data = Path(read.policy.data.path or "").name or read.policy.data.ref or ""
        model = Path(wanted.model or read.policy.model.path or "").name or read.policy.model.ref or ""
        return Verdict(**common, model=Subject(name=model), data=Subject(name=data), job=job, **why)
    report = evidence.report
    return Verdict(
        **common,
        model=Subject(name=report.model.name, sha256=report.model.sha256),
        data=Subject(name=report.data.name, sha256=report.data.sha256),
        rows=report.clean.total,
        suite=suite_version(report.job) if isinstance(report.job, Evaluate) else "",
        job=evidence.job,
        warnings=report.warnings,
        place=str(wanted.files[0].path) if wanted.files else f"sparring report open {evidence.job}",
    )


def _shown(path: Path) -> str:
    """A path as the repository has it: from the working folder, if it lies there."""
    whole, here = path.resolve(), Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else path).as_posix()

"""The course of a job that trains, as the runner directs it: part the rows, measure the model, train, measure what came of it."""

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

import sparring
from sparring.contract.attacks import SUITES
from sparring.contract.defenses import AnyDefense, FreeTraining
from sparring.contract.jobs import Evaluate
from sparring.contract.report import Cost, DataFacts, Report
from sparring.contract.retrained import DefenseResult, Epoch, Parts, RetrainReport
from sparring.contract.runner import Order, Other, TrainingOrder
from sparring.contract.states import Learnt
from sparring.contract.threat import Threat
from sparring.workers import assemble
from sparring.workers.bench import Facts, learns
from sparring.workers.crew import Crew, Part
from sparring.workers.retraining import verdict
from sparring.workers.retraining.coach import Result, Train, Trained, recall
from sparring.workers.retraining.rows import Parted
from sparring.workers.shard import UNBROKEN
from sparring.workers.spare import ARITHMETIC
from sparring.workers.surrogates import learnt

if TYPE_CHECKING:
    from sparring.workers.runner import Means, Measured

Measure = Callable[[Order, "Means", str], "Measured"]
TEST = "test.npz"
_BEFORE = "before"


class Tried(NamedTuple):
    """A model measured on the test rows."""

    report: Report
    right: list[bool]
    standing: list[list[bool]]
    """Under each threat."""


def retrain(order: TrainingOrder, means: "Means", measure: Measure) -> tuple[RetrainReport, tuple[str, ...]]:
    """Do the job but for writing its report; returns that, and the files left.

    Raises:
        CrewError: it cannot be done, and why.
    """
    began, started, out = time.monotonic(), datetime.now(UTC), Path(order.out)
    (out / "shards").mkdir(exist_ok=True)
    parted = _parted(order, means, out / TEST)
    threats = order.job.measured(parted.span)
    first = measure(_trial(order, parted, threats, None), means, "attack")
    results = _train(order, means, first.run.facts, threats, parted)
    later = [
        measure(_trial(order, parted, threats, (name, result)), means, f"attack {name}")
        for name, result in zip(order.job.names, results, strict=True)
    ]
    means.pace.phase("report", means.pace.total, means.pace.total)
    before, *after = (_tried(found) for found in (first, *later))
    chosen = verdict.choose(order.job, [result.marks for result in results])
    files = _hand_out(order, results, chosen)
    each = tuple(_result(order, at, result, before, after[at], files[at]) for at, result in enumerate(results))
    beside = {
        name: [verdict.paired(*pair) for pair in zip(own.standing, after[chosen].standing, strict=True)]
        for name, own in zip(order.job.names, after, strict=True)
    }
    kept = assemble.provenance(first.run)
    report = RetrainReport(
        job=order.job,
        model=before.report.model,
        data=_data(order, parted),
        parts=Parts(training=parted.training, validation=parted.validation, test=parted.test, unlabelled=parted.unlabelled),
        threats=threats,
        before=before.report,
        each=each,
        chosen=each[chosen].name,
        warnings=tuple(verdict.warnings(order.job, before.report, each)),
        advice=tuple(verdict.advice(before.report, each, each[chosen], beside)),
        cost=_cost([before.report, *(tried.report for tried in after)], began),
        provenance=kept.model_copy(update={"started": started, "finished": datetime.now(UTC)}),
    )
    names = {name for own in files for name in own.values()} | {f"model{Path(file).suffix}" for file in results[chosen].files.values()}
    return report, (*sorted(names), *((TEST,) if parted.sha256 else ()))


def _parted(order: TrainingOrder, means: "Means", path: Path) -> Parted:
    crew = Crew(None, "cpu", 1, means.desk)
    try:
        means.pace.phase("preflight")
        (parted,) = [answer for answer in crew.work([Part(order, path)]) if isinstance(answer, Parted)]
        return parted
    finally:
        crew.dismiss()


def _trial(order: TrainingOrder, parted: Parted, threats: tuple[Threat, ...], trained: tuple[str, Result] | None) -> Order:
    """The order to measure the model as it was, or one that was trained, on the test rows."""
    job, out, model, path = order.job, Path(order.out), order.model, Path(order.model_path)
    name = _BEFORE
    if trained is not None:
        name, result = trained
        path = out / "shards" / name / result.files[model.format]
        given = {"id": "", "name": f"{model.name} {name}"[:100], "sha256": _digest(path), "size": path.stat().st_size}
        model = model.model_copy(update=given)
    if parted.sha256:
        held = {"id": "", "name": f"{order.data.name} test rows"[:100], "sha256": parted.sha256, "size": (out / TEST).stat().st_size}
        data, source, cache = order.data.model_copy(update=held), str(out / TEST), str(out / "cache")
    else:
        other = order.others["test"]
        assert other.info.format == "npz"
        data, source, cache = other.info, other.path, order.cache
    taught = any(learns(attack) for attack in SUITES[job.suite][1])
    folder = out / "shards" / f"{name}.measured"
    folder.mkdir(exist_ok=True)
    return Order(
        job=Evaluate(
            model=model.sha256,
            data=data.sha256,
            threats=threats,
            suite=job.suite,
            training=order.data.sha256 if taught else None,
            seed=job.seed,
            timeout=job.timeout,
            device=job.device,
        ),
        model=model,
        model_path=str(path),
        data=data,
        data_path=source,
        others={"training": Other(info=order.data, path=order.data_path)} if taught else {},
        cache=cache,
        out=str(folder),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _train(order: TrainingOrder, means: "Means", facts: Facts, threats: tuple[Threat, ...], parted: Parted) -> list[Result]:
    """Every defense, as many at once as there are processes."""
    job, folder = order.job, Path(order.out) / "shards"
    plan = _plan(order, facts, threats)
    folders = [folder / name for name in job.names]
    costs = [_passes(defense, job.training.epochs) * parted.training for defense in job.defenses]
    missing = [at for at, own in enumerate(folders) if recall(own, plan) is None]
    shares = [0.0 if at in missing else 1.0 for at in range(len(folders))]
    means.pace.phase("train", sum(costs), sum(cost for at, cost in enumerate(costs) if at not in missing))
    if missing:  # every row process would else spend seconds on what optimisers and exports import when they are first used
        importlib.import_module("torch._dynamo")
    crew = Crew(None, means.device, means.processes, means.desk)
    try:
        for answer in crew.work([Train(order, at, facts, threats, folders[at], plan) for at in missing]):
            if isinstance(answer, Trained):
                more = int(costs[answer.at] * answer.done) - int(costs[answer.at] * shares[answer.at])
                shares[answer.at] = answer.done
                means.pace.curves = {**means.pace.curves, job.names[answer.at]: tuple(map(_live, answer.curve))}
                means.pace.advance("train", more, taken_over=answer.taken_over)
    finally:
        crew.dismiss()
    return [result for own in folders if (result := recall(own, plan)) is not None]


def _passes(defense: AnyDefense, epochs: int) -> int:
    """Times each row goes forward and back through the model in the whole training."""
    replays = defense.replays if isinstance(defense, FreeTraining) else 1
    return -(-epochs // replays) * defense.gradients


def _plan(order: TrainingOrder, facts: Facts, threats: tuple[Threat, ...]) -> str:
    """Digest of all that a training depends on."""
    given = [order.job, order.model.spec, order.data.spec, *threats]
    digests = [order.model.sha256, order.data.sha256, *sorted((name, other.info.sha256) for name, other in order.others.items())]
    machine = [facts.device, facts.probabilities, assemble.processor(), sparring.__version__, torch.__version__, sorted(ARITHMETIC.items())]
    return hashlib.sha256(json.dumps([*(each.model_dump(mode="json") for each in given), *digests, *machine]).encode()).hexdigest()


def _live(epoch: Epoch) -> Learnt:
    return Learnt(
        epoch=epoch.epoch,
        loss=epoch.loss,
        clean=epoch.clean.rate if epoch.clean else None,
        robust=epoch.robust.rate if epoch.robust else None,
    )


def _tried(found: "Measured") -> Tried:
    run, results = found.run, found.results
    report = assemble.compose(run, results, learnt(run.order, run.facts, found.digest))
    right = (results.clean == results.labels).tolist()
    return Tried(report, right, [(ended.broken_by == UNBROKEN).tolist() for ended in results.ended])


def _hand_out(order: TrainingOrder, results: Sequence[Result], chosen: int) -> list[dict[str, str]]:
    """Put the files of every model into the job's folder; their names by form. That of the chosen one is there as `model` in any case."""
    out, names = Path(order.out), order.job.names
    told = []
    for at, (name, result) in enumerate(zip(names, results, strict=True)):
        stem = "model" if len(names) == 1 else f"model-{name}"
        own = {form: f"{stem}{Path(file).suffix}" for form, file in result.files.items()}
        for form, file in result.files.items():
            for target in {own[form], f"model{Path(file).suffix}"} if at == chosen else {own[form]}:
                (out / target).unlink(missing_ok=True)
                os.link(out / "shards" / name / file, out / target)
        told.append(own)
    return told


def _result(order: TrainingOrder, at: int, result: Result, before: Tried, after: Tried, files: dict[str, str]) -> DefenseResult:
    defense = order.job.defenses[at]
    made = DefenseResult(
        name=order.job.names[at],
        defense=defense,
        gradients=defense.gradients,
        epochs=result.epochs,
        epoch=result.epoch,
        end=result.end,
        reason=result.reason,
        curve=result.curve,
        seconds=result.seconds,
        resumed=result.resumed,
        notes=result.notes,
        after=after.report,
        clean=verdict.paired(before.right, after.right),
        robust=tuple(verdict.paired(*pair) for pair in zip(before.standing, after.standing, strict=True)),
        files=files,
    )
    return made.model_copy(update={"findings": (*result.findings, *verdict.findings(made))})


def _data(order: TrainingOrder, parted: Parted) -> DataFacts:
    given = order.data
    return DataFacts(
        **{name: getattr(given, name) for name in ("id", "name", "sha256", "format")},
        spec=parted.spec,
        shape=parted.shape,
        dtype=parted.dtype,
        labelled=True,
    )


def _cost(reports: Sequence[Report], began: float) -> Cost:
    costs = [report.cost for report in reports]
    return Cost(
        queries=sum(cost.queries for cost in costs),
        forwards=sum(cost.forwards for cost in costs),
        backwards=sum(cost.backwards for cost in costs),
        wall_seconds=time.monotonic() - began,
        attack_seconds=sum(cost.attack_seconds for cost in costs),
        check_forwards=sum(cost.check_forwards for cost in costs),
        check_backwards=sum(cost.check_backwards for cost in costs),
        check_seconds=sum(cost.check_seconds for cost in costs),
    )

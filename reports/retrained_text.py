"""The words and tables of a retrain job's report, as html, markdown and the terminal all say them."""

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from sparring.contract.base import Frozen
from sparring.contract.defenses import AnyDefense
from sparring.contract.report import Report
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import DefenseResult, Paired, RetrainReport
from sparring.reports import text

ENDS = {
    "finished": "all epochs were run",
    "stopped_early": "stopped early",
    "diverged": "diverged",
    "overfitting": "stopped: catastrophic overfitting",
}
"""How a training ends, in words."""

CHANGE = "Change, points"
GRADIENTS = (
    "Gradients: times each row goes forward and back through the model in one epoch; plain training is 1. "
    "Change: points of accuracy gained or lost against the model as it was, on the same rows; p: McNemar's exact test."
)
"""What the columns of the table mean."""
CHOSEN = "Epochs, and the defense that is handed on, were chosen on the validation rows; nothing was chosen on the test rows."


class Table(NamedTuple):
    """Head and rows; the first column is words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def headline(report: RetrainReport) -> str:
    """The defense that is handed on, in a line."""
    best = report.best
    told = "; ".join(
        f"robust accuracy {text.percent(after.worst)} under {text.threat_text(after.threat)}, before {text.percent(before.worst)}"
        for before, after in zip(report.before.threats, best.after.threats, strict=True)
    )
    return f"{best.name}: {told}; clean accuracy {text.percent(best.after.clean)}, before {text.percent(report.before.clean)}"


def change_text(paired: Paired, unit: str = " points") -> str:
    """`+8.9 points, p < 0.001`."""
    p = "p < 0.001" if paired.p_value < 0.001 else f"p = {paired.p_value:.3f}"
    return f"{100 * paired.change:+.1f}{unit}, {p}"


def comparison(report: RetrainReport) -> Table:
    """Every defense beside the model as it was."""
    threats = [text.threat_text(result.threat) for result in report.before.threats]
    head = ("Defense", "Gradients", "Clean", CHANGE, *(column for threat in threats for column in (threat, CHANGE)), "Epoch", "Time")
    before = ("as uploaded", "", text.rate(report.before.clean), "")
    scores = (cell for result in report.before.threats for cell in (text.rate(result.worst), ""))
    rows = [(*before, *scores, "", ""), *(_row(report, result) for result in report.each)]
    return Table(head, tuple(rows))


def _row(report: RetrainReport, result: DefenseResult) -> tuple[str, ...]:
    robust = (
        cell
        for after, paired in zip(result.after.threats, result.robust, strict=True)
        for cell in (text.rate(after.worst), change_text(paired, ""))
    )
    name = f"{result.name} (handed on)" if result.name == report.chosen and len(report.each) > 1 else result.name
    clean = text.rate(result.after.clean), change_text(result.clean, "")
    return name, str(result.gradients), *clean, *robust, f"{result.epoch} of {result.epochs}", text.duration(result.seconds)


def attacks(report: RetrainReport, at: int) -> Table:
    """What each attack leaves under one threat, of the model as it was and of each that was trained."""
    models: list[tuple[str, Report]] = [("as uploaded", report.before), *((result.name, result.after) for result in report.each)]
    named = list(dict.fromkeys(each.name for _, own in models for each in own.threats[at].each))
    head = ("Attack", *(name for name, _ in models))
    found = [{each.name: text.rate(each.robust) for each in own.threats[at].each} for _, own in models]
    rows = [(name, *(own.get(name, "–") for own in found)) for name in named]
    worst = ("worst case", *(text.percent(own.threats[at].worst) for _, own in models))
    return Table(head, (*rows, worst))


def trained_text(result: DefenseResult) -> str:
    """How one defense was trained, and how that ended."""
    reason = f" ({result.reason})" if result.reason and result.end != "finished" else ""
    told = [f"{ENDS[result.end]}{reason}", f"{result.epochs} epochs, the weights of epoch {result.epoch}", *result.notes]
    if result.resumed:
        told.append(f"{result.resumed} epochs taken over from an attempt that was cut off")
    return f"{defense_word(result.defense)}: {'; '.join(told)}"


def parts_text(report: RetrainReport) -> str:
    """`1,258 rows to learn from, 180 to choose on, 359 to measure`."""
    parts = report.parts
    given = [(parts.training, "rows to learn from"), (parts.validation, "to choose on"), (parts.test, "to measure")]
    given += [(parts.unlabelled, "without labels")] if parts.unlabelled else []
    return ", ".join(f"{text.number(count)} {purpose}" for count, purpose in given)


def defense_word(defense: AnyDefense, *, whole: bool = False) -> str:
    """A defense as `--defense` takes it: `trades:beta=3`; with its defaults written out if `whole`."""
    chosen = [f"{name}={value}" for name, value in settings(defense, whole=whole)]
    return f"{defense.kind}:{','.join(chosen)}" if chosen else defense.kind


def settings(given: Frozen, *, whole: bool = False) -> Iterator[tuple[str, str]]:
    """Names and values of the settings that are not at their default; of all that have a value, if `whole`."""
    for name, field in type(given).model_fields.items():
        value = getattr(given, name)
        if name == "kind" or value in (None, ()) or (value == field.default and not whole):
            continue
        yield name, "+".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)


def training_text(job: Retrain) -> str:
    """How every defense was trained: `epochs 20, batch 64 …`."""
    begin = "from fresh weights" if job.scratch else "from the weights of the model"
    return f"{begin}; {', '.join(f'{name} {value}' for name, value in settings(job.training, whole=True))}; precision {job.precision}"


def command(report: RetrainReport) -> str:
    """The `sparring` command that runs the job again where the uploads still are."""
    job = report.job
    words = ["sparring", "retrain", job.model, job.data, *(word for each in job.defenses for word in ("--defense", defense_word(each)))]
    for name in ("unlabelled", "test", "patience", "rows"):
        if given := getattr(job, name):
            words += [f"--{name}", str(given)]
    for threat in job.threats:
        words += ["--threat", f"{threat.norm}:{threat.eps}{':targeted' if threat.targeted else ''}"]
    words += ["--epochs", str(job.training.epochs), *(["--scratch"] if job.scratch else [])]
    shared = {("epochs", str(job.training.epochs)), ("seed", str(job.seed))}
    own = [f"{name}={value}" for name, value in settings(job.training) if (name, value) not in shared]
    words += ["--training", ",".join(own)] if own else []
    for name in ("validation", "held_out", "precision", "suite", "device"):
        if (value := getattr(job, name)) != Retrain.model_fields[name].default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--seed", str(job.seed), "-o", "new.pt2"])

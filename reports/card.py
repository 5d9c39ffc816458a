"""A report for those who list models: a model card for the Hugging Face Hub, and an entry in the shape of RobustBench's."""

import json
from pathlib import PurePath
from typing import Any, get_args

import yaml

from sparring.contract.attacks import SUITES, Knowledge
from sparring.contract.jobs import Evaluate
from sparring.contract.report import DataFacts, Report, Score, ThreatResult
from sparring.reports import text
from sparring.reports.markdown import markdown
from sparring.reports.pictures import upright

CARD = "card.md"
ROBUSTBENCH = "robustbench.json"
_TAGS = ("adversarial-robustness", "sparring")


def card(report: Report) -> str:
    """The report as a model card: Markdown under metadata with a `model-index`, as the README of a model on the Hub begins.

    Rates are in percent. A number that is invalid stands in the text with its evidence, but is no metric; nor is a rate of no rows.
    """
    result = {
        "task": {"type": _task(report.data), "name": "Adversarial robustness"},
        "dataset": {"type": _plain(report.data.name), "name": _plain(report.data.name), "args": {"sha256": report.data.sha256}},
        "metrics": _metrics(report),
    }
    about = {"tags": list(_TAGS), "model-index": [{"name": _plain(report.model.name), "results": [result]}]}
    head = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{markdown(report)}"


def _task(data: DataFacts) -> str:
    if len(data.shape) == 4 and upright(data.shape[1:], data.spec.layout):  # a table may hold anything over time
        return "image-classification"
    return "tabular-classification" if len(data.shape) == 2 else "other"


def _metrics(report: Report) -> list[dict[str, Any]]:
    how = _attacks(report)
    said = "accuracy" if report.data.labelled else "share of predictions kept"
    found = [_metric(f"clean {said}", report.clean)] if report.clean.total and report.data.labelled else []
    for result in report.threats:
        level = result.trust.level
        if level == "invalid" or not result.worst.total:
            continue
        within = f"within {text.threat_text(result.threat)}"
        found.append(_metric(f"robust {said} {within} ({how}; trust: {level})", result.worst, trust=level))
        if result.certified is not None:
            proved = Score(count=result.certified, total=result.worst.total)
            found.append(_metric(f"certified {said} {within} ({report.provenance.proof})", proved))
    return found


def _metric(name: str, score: Score, **more: str) -> dict[str, Any]:
    low, high = (round(100 * end, 2) for end in score.interval)
    args = {"count": score.count, "total": score.total, "interval_95": [low, high], **more}
    return {"type": "accuracy", "name": name, "value": round(100 * score.rate, 2), "args": args}


def robustbench(report: Report) -> str:
    """The report as an entry in the shape of RobustBench's `model_info`: an object for one threat, a list of them for several.

    `autoattack_acc` is the worst case of the whole suite `standard`, which runs what AutoAttack's standard version does; after any
    other attacks, or some of them alone, the worst case stands as `external`. What only the authors know is null.
    """
    found = [_entry(report, result) for result in report.threats]
    return json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False) + "\n"


def _entry(report: Report, result: ThreatResult) -> dict[str, Any]:
    standard, worst = _standard(report, result), _percent(result.worst)
    return {
        "link": None,
        "name": _plain(report.model.name),
        "authors": None,
        "additional_data": None,
        "number_forward_passes": None if text.smoothed(report) else 1,
        "dataset": _plain(PurePath(report.data.name).stem),
        "venue": None,
        "architecture": report.model.spec.arch,
        "eps": str(result.threat.eps),
        "clean_acc": _percent(report.clean),
        "reported": None,
        "autoattack_acc": worst if standard else None,
        "external": None if standard else worst,
        "footnote": _footnote(report, result),
        "unreliable": result.trust.level in ("suspect", "invalid"),
    }


def _standard(report: Report, result: ThreatResult) -> bool:
    """Whether every attack of the suite ran, in full precision and toward any other class."""
    ran = [each.attack for each in result.each]
    exact = isinstance(report.job, Evaluate) and report.job.precision == "exact"
    return exact and not result.threat.targeted and all(attack in ran for attack in SUITES["standard"][1])


def _footnote(report: Report, result: ThreatResult) -> str:
    low, high = (100 * end for end in result.worst.interval)
    labels = "" if report.data.labelled else " The data has no labels: the model's own predictions stand in for them."
    return (
        f"Measured by Sparring {report.provenance.sparring} within {text.threat_text(result.threat)} by {_attacks(report)} on "
        f"{text.number(result.worst.total)} rows: 95 % interval [{low:.2f}, {high:.2f}], trust: {result.trust.level}.{labels}"
    )


def _attacks(report: Report) -> str:
    by, job = report.provenance.suite or "attacks of its own", report.job
    if isinstance(job, Evaluate):
        by += "" if job.precision == "exact" else f"+{job.precision}"
        some = job.knowledge and len(job.knowledge) < len(get_args(Knowledge))
        by += f", {' and '.join(sorted(job.knowledge))} box alone" if some else ""
    return f"{by}, of the smoothed model" if text.smoothed(report) else by


def _percent(score: Score) -> str | None:
    return f"{100 * score.rate:.2f}" if score.total else None


def _plain(name: str) -> str:
    return " ".join(text.visible(name).split())

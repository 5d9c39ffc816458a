"""Tables and lines on the terminal: data on stdout, everything else on stderr."""

import json
import os
from collections.abc import Iterable, Sequence

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sparring.contract.jobs import Job
from sparring.contract.report import Finding, Report, ThreatResult
from sparring.contract.resources import DatasetInfo, JobInfo, KeyInfo, ModelInfo
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import Lineage, RetrainReport
from sparring.contract.webhooks import WebhookInfo
from sparring.reports import retrained_text as words
from sparring.reports import text

WIDE = 200
"""Columns of a table that goes into a file or a pipe, unless COLUMNS says otherwise."""
ROOMY = 96
"""Columns from which a table of attacks also says how each was counted."""


def console(*, stderr: bool = False) -> Console:
    """Where to print; what is no terminal gets long lines rather than broken ones."""
    plain = Console(stderr=stderr, highlight=False, soft_wrap=False)
    wide = os.environ.get("COLUMNS", "").isdigit()
    return plain if plain.is_terminal or wide else Console(stderr=stderr, highlight=False, width=WIDE)


def _print(made: Table) -> None:
    """A table on stdout, without the spaces that would fill up its lines."""
    screen = console()
    with screen.capture() as drawn:
        screen.print(made)
    for line in drawn.get().splitlines():
        screen.out(line.rstrip(), highlight=False)


def say(line: str) -> None:
    """One line on stderr, as it is."""
    console(stderr=True).print(Text(text.visible(line)), soft_wrap=True)


def tell(line: str) -> None:
    """One line on stdout, as it is."""
    console().print(Text(text.visible(line)), soft_wrap=True)


def as_json(found: Iterable[BaseModel]) -> None:
    """A list of objects as JSON on stdout."""
    print(json.dumps([one.model_dump(mode="json") for one in found], indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()) -> None:
    """A table on stdout; the columns named in `numbers` stand to the right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in ("id", *numbers))
    for row in rows:
        made.add_row(*(Text(text.visible(str(cell))) for cell in row))
    _print(made)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values on stdout, one to a line; empty values are left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in pairs:
        if value not in (None, ""):
            made.add_row(Text(name, style="dim"), Text(text.visible(str(value))))
    _print(made)


def findings(report: Report) -> None:
    """The warnings of a report on stdout, and what else spoke against a number."""
    _warn((*report.warnings, *(found for result in report.threats for found in text.own_evidence(result, report.warnings))))


def _warn(findings: Iterable[Finding]) -> None:
    for finding in findings:
        told = text.visible(f"{finding.message} {finding.hint}".strip())
        console().print(Text.assemble(("warning ", "bold yellow"), told), soft_wrap=True)


def report(found: Report) -> None:
    """A report on stdout: a headline for each threat, warnings, a table of attacks for each threat."""
    for result in found.threats:
        console().print(Text(text.headline(result, found.clean), style="bold"), soft_wrap=True)
    for sentence in text.believed(found.threats):
        tell(sentence)
    if not found.data.labelled:
        tell(text.UNLABELLED)
    if suite := text.suite_text(found):
        tell(f"attacks: {suite}; `sparring suites show {suite.removeprefix('suite ').partition('@')[0]}` lists them")
    findings(found)
    cascaded = text.cascaded(found)
    if cascaded:
        tell(text.CASCADE)
    for result in found.threats:
        console().print()
        _attacks(result, found)
    _minimal(found)
    _corruptions(found)


def any_report(found: Report | RetrainReport) -> None:
    """A report of any kind on stdout."""
    report(found) if isinstance(found, Report) else retrained(found)


def retrained(found: RetrainReport) -> None:
    """The report of a retrain job on stdout: what came of it, warnings, advice, defenses side by side, attacks before and after."""
    console().print(Text(words.headline(found), style="bold"), soft_wrap=True)
    tell(f"{words.parts_text(found)}; attacks: {text.suite_text(found.before)}")
    for sentence in text.believed(found.best.after.threats):
        tell(sentence)
    _warn(found.warnings)
    for sentence in found.advice:
        tell(sentence)
    console().print()
    _table("defenses", words.comparison(found))
    tell(words.GRADIENTS)
    for at, threat in enumerate(found.threats):
        console().print()
        _table(text.threat_text(threat), words.attacks(found, at))
    for result in found.each:
        tell(f"{result.name}: {words.trained_text(result)}")


def _table(title: str, found: words.Table) -> None:
    names = tuple(name.lower() for name in found.head)
    table(title, names, found.rows, names[1:])


def _attacks(result: ThreatResult, found: Report) -> None:
    """What each attack did under one threat: a table, and below it how each was set."""
    cascaded = text.cascaded(found)
    accuracy, gain = ("worst case so far", "gain") if cascaded else ("robust accuracy", "first")
    further = ("entered", "queries") if console().width >= ROOMY else ()
    columns = ("attack", accuracy, "rows", "broken", gain, "time", *further)
    rows = [
        (
            each.name,
            text.percent(each.robust),
            text.fraction(each.robust),
            *map(text.number, (each.broken, each.first)),
            text.duration(each.seconds),
            *(text.number(getattr(each, name)) for name in further),
        )
        for each in result.each
    ]
    worst = ("worst case", text.percent(result.worst), text.fraction(result.worst), "", "", "", *("" for _ in further))
    table(text.threat_text(result.threat), columns, [*rows, worst], columns[1:])
    for each in result.each:
        tell(f"{each.name}: {'; '.join((text.settings_text(each.attack, result.threat), *text.remarks(each)))}")
    if proved := text.proved_text(result, found):
        tell(proved)
    head, levels = text.level_table(result)
    if levels:
        columns = tuple(column.lower() for column in head)
        table("by what the attacker knows", columns, levels, columns[1:])


def _minimal(found: Report) -> None:
    """What attacks found that look for the smallest change."""
    columns = ("attack", "norm", "found", "median distance")
    rows = [
        (one.name, curve.title, text.fraction(one.found), text.figure(one.median_distance))
        for curve in text.curves(found)
        for one in curve.minimal
    ]
    if rows:
        console().print()
        table("smallest changes", columns, rows, columns[2:])
        tell(text.MINIMAL)


def _corruptions(found: Report) -> None:
    """Accuracy under common corruptions."""
    if found.corruptions:
        head, rows = text.corruption_table(found)
        console().print()
        table("common corruptions", tuple(map(str.lower, head)), rows, tuple(map(str.lower, head[1:])))


def uploads(found: Iterable[ModelInfo | DatasetInfo]) -> None:
    """A table of models or datasets."""
    rows = [(u.id, u.name, u.format, text.size(u.size), u.sha256[:12], f"{u.created:%Y-%m-%d %H:%M}") for u in found]
    table("", ("id", "name", "format", "size", "sha256", "created"), rows, ("size",))


def upload(found: ModelInfo | DatasetInfo) -> None:
    """One model or dataset."""
    declared = found.spec.model_dump_json(exclude_none=True)
    pairs = [(name, getattr(found, name)) for name in ("id", "name", "sha256", "format")]
    made = _lineage(found.lineage) if isinstance(found, ModelInfo) and found.lineage else ()
    facts([*pairs, ("size", text.size(found.size)), ("declared", declared), ("created", found.created.isoformat(" ", "seconds")), *made])


def _lineage(lineage: Lineage) -> tuple[tuple[str, object], ...]:
    recipe = lineage.recipe
    how = f"{words.defense_word(recipe.defense)}, epoch {recipe.epoch} of {recipe.training.epochs}, seed {lineage.seed}"
    against = ", ".join(f"{each.id} (sha256 {each.sha256})" for each in lineage.surrogates)
    return ("trained from", lineage.parent), ("on", lineage.data), ("by", how), ("and", lineage.unlabelled), ("against", against)


def _progress(job: JobInfo) -> str:
    done = job.progress
    return f"{done.phase} {done.done:,}/{done.total:,}".strip() if done.total else done.phase


def jobs(found: Iterable[JobInfo]) -> None:
    """A table of jobs."""
    rows = [
        (j.id, j.job.kind, j.state, _progress(j), j.attempt, f"{j.created:%Y-%m-%d %H:%M}", j.reason.message if j.reason else j.note)
        for j in found
    ]
    table("", ("id", "kind", "state", "progress", "attempt", "created", "note"), rows, ("attempt",))


def job(found: JobInfo) -> None:
    """One job, with its settings and the files it left."""
    asked: Job = found.job
    reason = found.reason
    times = [(name, at.isoformat(" ", "seconds")) for name in ("created", "started", "finished") if (at := getattr(found, name))]
    facts(
        [
            ("id", found.id),
            ("kind", asked.kind),
            ("state", found.state),
            ("progress", _progress(found)),
            ("note", found.note),
            ("reason", f"{reason.message} ({reason.code}{' ' + reason.detail if reason.detail else ''})" if reason else ""),
            ("what to do", reason.hint if reason else ""),
            ("attempt", found.attempt),
            ("key", found.key),
            *times,
            ("model", asked.model),
            ("data", asked.data),
            ("defenses", ", ".join(map(words.defense_word, asked.defenses)) if isinstance(asked, Retrain) else ""),
            ("threats", ", ".join(map(text.threat_text, asked.threats))),
            ("models made", ", ".join(found.models)),
            ("files", ", ".join(f"{a.name} ({text.size(a.size)})" for a in found.artifacts)),
        ]
    )


def keys(found: Iterable[KeyInfo]) -> None:
    """A table of API keys."""
    rows = [(k.id, k.name, *(f"{at:%Y-%m-%d %H:%M}" if at else "–" for at in (k.created, k.last_used, k.expires))) for k in found]
    table("", ("id", "name", "created", "last used", "expires"), rows)


def webhooks(found: Iterable[WebhookInfo]) -> None:
    """A table of webhooks."""
    rows = [(w.id, w.url, w.waiting, f"{w.delivered:%Y-%m-%d %H:%M}" if w.delivered else "–", w.fault or "–") for w in found]
    table("", ("id", "url", "waiting", "last arrived", "fault"), rows, ("waiting",))

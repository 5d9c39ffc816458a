"""A report as Markdown, for job summaries, pull requests and terminals."""

import re
from collections.abc import Iterable, Sequence

from sparring.contract.report import Finding, Report, ThreatResult
from sparring.reports import rerun, text

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~@:])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def escape(value: str) -> str:
    """Text that Markdown shows as it is, in a paragraph and in a table: no markup, no HTML, no link, no mention, no line break."""
    return _MARKUP.sub(r"\\\1", " ".join(text.visible(value).split())).translate(_HTML)


def fenced(value: str, language: str = "") -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", value)), default=0))
    return f"{fence}{language}\n{text.visible(value)}\n{fence}"


def tabled(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its first column is text, the others numbers. The cells are Markdown already."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(findings: Iterable[Finding]) -> str:
    """Findings as a list."""
    lines = []
    for finding in findings:
        facts = "; ".join(f"{name}: {text.evidence_text(value)}" for name, value in finding.evidence.items())
        said = " ".join(filter(None, (finding.hint, facts and f"({facts})")))
        lines.append(f"- **{escape(finding.message)}** {escape(said)} `{finding.code}`".replace("  ", " "))
    return "\n".join(lines)


def _result(report: Report) -> str:
    head = ("Threat", "Robust accuracy", "95 % interval", "Rows", "Clean accuracy", "Trust")
    rows = [
        (
            escape(text.threat_text(r.threat)),
            f"**{text.rate(r.worst)}**",
            text.interval(r.worst),
            text.fraction(r.worst),
            text.percent(report.clean),
            r.trust.level,
        )
        for r in report.threats
    ]
    return "\n\n".join([tabled(head, rows), *text.believed(report.threats), *([] if report.data.labelled else [text.UNLABELLED])])


def _attacks(result: ThreatResult, report: Report) -> str:
    accuracy, gain = ("Worst case so far", "Gain") if text.cascaded(report) else ("Robust accuracy", "First")
    head = ("Attack", accuracy, "Rows", "Entered", "Broken", gain, "Queries", "Forwards", "Backwards", "Time")
    counts = ("entered", "broken", "first", "queries", "forwards", "backwards")
    rows = [
        (
            escape(each.name),
            text.percent(each.robust),
            text.fraction(each.robust),
            *(text.number(getattr(each, name)) for name in counts),
            text.duration(each.seconds),
        )
        for each in result.each
    ]
    settings = [
        f"- {escape(e.name)}: {escape('; '.join((text.settings_text(e.attack, result.threat), *text.remarks(e))))}" for e in result.each
    ]
    distance = [] if result.median_distance is None else [f"Median distance of broken rows: {text.figure(result.median_distance)}."]
    title = f"### {escape(text.threat_text(result.threat))}"
    own = filter(None, [bullets(text.own_evidence(result, report.warnings))])
    proved = filter(None, [escape(text.proved_text(result, report))])
    columns, known = text.level_table(result)
    levels = [tabled(columns, known)] if known else []
    return "\n\n".join([title, tabled(head, rows), "\n".join(settings), *levels, *distance, *proved, *own])


def _curves(report: Report) -> str:
    rows = [
        (
            curve.title,
            text.eps_text(point, report.threats),
            text.rate(point.robust),
            text.interval(point.robust),
            text.fraction(point.robust),
        )
        for curve in text.curves(report)
        for point in curve.points
    ]
    return tabled(("Norm", "eps", "Accuracy", "95 % interval", "Rows"), rows)


def _minimal(report: Report) -> str:
    head = ("Attack", "Norm", "Found", "Median distance")
    rows = [
        (escape(found.name), curve.title, text.fraction(found.found), text.figure(found.median_distance))
        for curve in text.curves(report)
        for found in curve.minimal
    ]
    return f"{tabled(head, rows)}\n\n{text.MINIMAL}"


def _asking(report: Report) -> str:
    head = ("Attack", "Threat", "Broken", "Half within", "90 % within")
    rows = [
        (
            escape(each.name),
            escape(text.threat_text(asked.threat)),
            f"{text.number(each.broken)} of {text.number(each.entered)}",
            *("–" if count is None else text.number(count) for count in (each.median_queries, each.p90_queries)),
        )
        for asked in text.asking(report)
        for each in asked.each
    ]
    return f"{tabled(head, rows)}\n\n{text.ASKING}"


def _corruptions(report: Report) -> str:
    head, rows = text.corruption_table(report)
    return f"{tabled(head, rows)}\n\n{text.CORRUPTED}"


def _classes(report: Report) -> str:
    head = ("Class", "Clean", *(escape(text.threat_text(r.threat)) for r in report.threats))
    rows = [
        (str(row.label), *("–" if s is None else f"{text.rate(s)} ({text.fraction(s)})" for s in (row.clean, *row.robust)))
        for row in text.class_rows(report.threats)
    ]
    return tabled(head, rows)


def _checks(report: Report) -> str:
    parts = [text.CHECKED]
    for title, found in text.checks(report):
        rows = ((text.check_name(check.code), text.check_state(check), escape(check.message)) for check in found)
        parts += [f"### Checks {escape(title)}", tabled(("Check", "Found", "What was seen"), rows)]
    return "\n\n".join(parts)


def _facts(report: Report) -> str:
    model, data, cost, run = report.model, report.data, report.cost, report.provenance
    parameters = f"{text.number(model.parameters)} parameters" if model.spec.endpoint is None else model.spec.endpoint.address
    said = {
        "Model": f"{model.name}, {model.format}, {parameters}, {model.classes} classes, sha256 {model.sha256}",
        "Data": f"{data.name}, {data.format}, {' × '.join(map(str, data.shape))} {data.dtype}, sha256 {data.sha256}",
        "Declared": f"model {model.spec.model_dump_json(exclude_none=True)}, data {data.spec.model_dump_json(exclude_none=True)}",
        "Cost": (
            f"{text.duration(cost.wall_seconds)} wall clock, {text.duration(cost.attack_seconds)} in attacks, "
            f"{text.number(cost.queries)} queries, {text.traffic(cost)}"
            f"{text.number(cost.forwards)} rows forward, {text.number(cost.backwards)} rows backward"
        ),
        "Run": (
            f"sparring {run.sparring}, torch {run.torch}, python {run.python}, {run.platform}, {run.device}, {run.processor}, "
            f"{run.processes} processes of {run.threads} threads, tile {run.tile}, seed {report.job.seed}"
        ),
        "Rows": "bit-equal whatever stands beside them" if run.rows_independent else "change with what stands beside them",
        "Attacks": text.suite_text(report) or "listed by the job",
        "Judge": f"{run.judge}; search copy: {', '.join(run.search) or 'as uploaded'}",
        "When": f"{run.started.isoformat(' ', 'seconds')} to {run.finished.isoformat(' ', 'seconds')}",
    }
    return "\n".join(f"- **{name}**: {escape(value)}" for name, value in said.items())


def markdown(report: Report) -> str:
    """The report in GitHub's Markdown: the facts of the page, without its pictures. Everything a user wrote is escaped."""
    parts = [f"# {escape(report.model.name)} on {escape(report.data.name)}: robustness report", _result(report)]
    if report.warnings:
        parts += ["## Warnings", bullets(report.warnings)]
    how = [text.CASCADE] if text.cascaded(report) else []
    parts += ["## Attacks", *how, *(_attacks(result, report) for result in report.threats)]
    if report.curve:
        parts += ["## Accuracy against eps", _curves(report)]
    if report.minimal:
        parts += ["## Smallest changes", _minimal(report)]
    if text.asking(report):
        parts += ["## Queries", _asking(report)]
    if report.corruptions:
        parts += ["## Common corruptions", _corruptions(report)]
    if text.checks(report):
        parts += ["## Checks", _checks(report)]
    if any(r.classes for r in report.threats):
        parts += ["## Classes", _classes(report)]
    parts += ["## Facts", _facts(report), "## Run it again", fenced(rerun.command(report), "sh")]
    parts += [fenced(report.job.model_dump_json(indent=2), "json")]
    return "\n\n".join(parts) + "\n"

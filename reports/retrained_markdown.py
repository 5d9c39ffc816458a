"""The report of a retrain job as Markdown."""

from sparring.contract.retrained import RetrainReport
from sparring.reports import retrained_text as words
from sparring.reports import text
from sparring.reports.markdown import bullets, escape, fenced, tabled


def retrained_markdown(report: RetrainReport) -> str:
    """The report in GitHub's Markdown. Everything a user wrote is escaped."""
    parts = [f"# {escape(report.model.name)} retrained on {escape(report.data.name)}", f"**{escape(words.headline(report))}**"]
    parts += text.believed(report.best.after.threats)
    parts += ["\n".join(f"- {escape(sentence)}" for sentence in report.advice)] if report.advice else []
    own = [found for result in report.best.after.threats for found in text.own_evidence(result, report.warnings)]
    parts += [bullets(own)] if own else []
    parts += [_table(words.comparison(report)), words.GRADIENTS, words.CHOSEN]
    if report.warnings:
        parts += ["## Warnings", bullets(report.warnings)]
    parts += ["## Attacks"]
    for at, threat in enumerate(report.threats):
        parts += [f"### {escape(text.threat_text(threat))}", _table(words.attacks(report, at))]
    parts += ["## Training", "\n".join(f"- {escape(each.name)}: {escape(words.trained_text(each))}" for each in report.each)]
    parts += ["## Facts", _facts(report), "## Run it again", fenced(words.command(report), "sh")]
    parts += [fenced(report.job.model_dump_json(indent=2), "json")]
    return "\n\n".join(parts) + "\n"


def _table(table: words.Table) -> str:
    return tabled(tuple(map(escape, table.head)), [tuple(map(escape, row)) for row in table.rows])


def _facts(report: RetrainReport) -> str:
    model, data, run = report.model, report.data, report.provenance
    said = {
        "Model": f"{model.name}, {model.format}, {text.number(model.parameters)} parameters, sha256 {model.sha256}",
        "Data": f"{data.name}, {' × '.join(map(str, data.shape))} {data.dtype}, sha256 {data.sha256}",
        "Rows": words.parts_text(report),
        "Training": words.training_text(report.job),
        "Measured by": text.suite_text(report.before),
        "Run": f"sparring {run.sparring}, torch {run.torch}, {run.platform}, {run.device}, {run.processor}, {run.processes} processes, "
        f"seed {report.job.seed}, {text.duration(report.cost.wall_seconds)} wall clock",
    }
    return "\n".join(f"- **{name}**: {escape(value)}" for name, value in said.items())

"""The report of a job that trained, as files."""

from pathlib import Path

from sparring.contract.retrained import RetrainReport
from sparring.contract.runner import TrainingOrder
from sparring.reports.retrained_html import retrained_html
from sparring.reports.retrained_markdown import retrained_markdown


def leave(order: TrainingOrder, report: RetrainReport, files: tuple[str, ...]) -> tuple[str, ...]:
    """Write it beside the other files; returns the names of all."""
    out = Path(order.out)
    (out / "report.json").write_text(report.model_dump_json(indent=1))
    (out / "report.html").write_text(retrained_html(report))
    (out / "report.md").write_text(retrained_markdown(report))
    return ("report.json", "report.html", "report.md", *files)

"""The report of a retrain job as one self-contained page."""

from markupsafe import Markup

from sparring.contract.retrained import RetrainReport
from sparring.reports import retrained_text as words
from sparring.reports.figures import training_svg
from sparring.reports.html import environment, style

_SAID = ("parts_text", "change_text", "trained_text", "training_text")


def retrained_html(report: RetrainReport) -> str:
    """The report as one HTML page: no JavaScript, nothing fetched, everything a user wrote escaped."""
    page = environment().overlay()
    page.filters = page.filters | {name: getattr(words, name) for name in _SAID}
    return page.get_template("retrained.html.j2").render(
        report=report,
        css=style(),
        comparison=words.comparison(report),
        attacks=[(threat, words.attacks(report, at)) for at, threat in enumerate(report.threats)],
        curves=[(result, Markup(training_svg(result.curve, f"training-{at}"))) for at, result in enumerate(report.each)],
        command=words.command(report),
        job=report.job.model_dump_json(indent=2),
        GRADIENTS=words.GRADIENTS,
        CHOSEN=words.CHOSEN,
    )

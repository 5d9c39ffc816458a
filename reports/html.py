"""A report as one self-contained page: no JavaScript, nothing fetched, everything a user wrote escaped."""

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sparring.contract.report import Report
from sparring.reports import moved, rerun, text
from sparring.reports.figures import curve_svg, distances_svg, queries_svg

_HERE = Path(__file__).parent
FOLDED = 20
"""Classes above which their table is folded away."""
_SAID = (
    *("rate", "interval", "percent", "number", "fraction", "figure", "duration"),
    *("threat_text", "trust_text", "evidence_text", "own_evidence", "proved_text", "suite_text", "check_name", "check_state"),
)
_KNOWN = ("settings_text", "eps_text", "level_table", "remarks", "ASKING", "CASCADE", "CHECKED", "CORRUPTED", "MINIMAL", "UNLABELLED")


class Picture(NamedTuple):
    """A broken row of image data, to be looked at. The three pictures are PNG files."""

    row: int
    label: int
    threat: int
    """Index among the job's threats."""
    clean_prediction: int
    prediction: int
    broken_by: str
    """Name of the attack that broke it."""
    distance: float
    """||x' - x|| in the threat's norm."""
    original: bytes
    perturbation: bytes
    """x' - x, amplified; mid-grey is no change."""
    adversarial: bytes


def _unseen_shown(value: object) -> object:
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


@cache
def environment() -> Environment:
    """Templates of pages, with the words that all of them use; compiled once."""
    page = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=_unseen_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {name: getattr(text, name) for name in _SAID}
    page.filters["data_uri"] = _data_uri
    page.filters["class_name"] = moved.class_name
    page.globals |= {name: getattr(text, name) for name in _KNOWN}
    page.globals |= {"SHIFTED": moved.SHIFTED, "SPREAD": moved.SPREAD}
    return page


def style() -> Markup:
    """The style sheet of every page."""
    return Markup((_HERE / "report.css").read_text(encoding="utf-8"))


def html(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """The report as one HTML page that opens, mails, archives and prints anywhere.

    Args:
        report: the counts; every rate and interval in the page is computed from them.
        pictures: broken rows to show; none for data that are not images.
    """
    drawn = [(curve, Markup(curve_svg(curve, f"curve-{at}"))) for at, curve in enumerate(text.curves(report))]
    asked = [(each, Markup(queries_svg(each, f"queries-{at}"))) for at, each in enumerate(text.asking(report))]
    spreads = [(each, Markup(distances_svg(each, f"distances-{at}"))) for at, each in enumerate(moved.spreads(report))]
    examples = [(result.threat, [p for p in pictures if p.threat == at]) for at, result in enumerate(report.threats)]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            css=style(),
            curves=drawn,
            asked=asked,
            spreads=spreads,
            shifts=moved.shifts(report),
            examples=[(threat, chosen) for threat, chosen in examples if chosen],
            classes=text.class_rows(report.threats),
            folded=FOLDED,
            job=report.job.model_dump_json(indent=2),
            command=rerun.command(report),
            command_from_files=rerun.command_from_files(report),
            cascaded=text.cascaded(report),
            words=text.attack_words(report),
            corruptions=text.corruption_table(report),
            checks=text.checks(report),
        )
    )

"""Files a verdict is written to, by the endings of their names; everything that can be wrong is found before any work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sparring import __version__
from sparring.contract.verdict import Verdict
from sparring.errors import UsageProblem
from sparring.paths import check_folder, kind_of
from sparring.reports.badge import badge
from sparring.reports.gate_html import html
from sparring.reports.gate_markdown import markdown
from sparring.reports.junit import junit
from sparring.reports.sarif import sarif
from sparring.show import say


def _json(verdict: Verdict) -> str:
    return verdict.model_dump_json(indent=1) + "\n"


def _sarif(verdict: Verdict) -> str:
    return sarif(verdict, __version__)


FORMS: dict[str, Callable[[Verdict], str]] = {
    "badge.json": badge,
    ".json": _json,
    ".xml": junit,
    ".sarif": _sarif,
    ".md": markdown,
    ".html": html,
}
"""By the ending of the name; the first that fits."""


class Form(NamedTuple):
    """A file to write, and how."""

    path: Path
    make: Callable[[Verdict], str]


def forms(paths: Sequence[Path]) -> tuple[Form, ...]:
    """What each `-o` asks for.

    Raises:
        UsageProblem: unknown ending, no such folder, a folder in the way, not writable, the same file twice.
    """
    found: list[Form] = []
    for path in paths:
        make = next((make for ending, make in FORMS.items() if path.name.lower().endswith(ending)), None)
        if make is None:
            raise UsageProblem(f"-o {path}: no verdict is written as this", f"Known are {', '.join(FORMS)}")
        check_folder(path, "-o ")
        if kind_of(path, "-o ") == "folder":
            raise UsageProblem(f"-o {path}: this is a folder, not a file")
        if any(path.resolve() == other.path.resolve() for other in found):
            raise UsageProblem(f"-o {path} is given twice")
        found.append(Form(path, make))
    return tuple(found)


def write(verdict: Verdict, wanted: Sequence[Form]) -> None:
    """Write each file, and say where it lies. UsageProblem where that cannot be done."""
    for path, make in wanted:
        try:
            path.write_text(make(verdict), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{path} cannot be written: {error.strerror}") from error
        say(f"wrote {path}")

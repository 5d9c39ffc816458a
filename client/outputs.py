"""Files a report is written to, by the suffix of their names; everything that can be wrong is found before any work."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sparring.bundle import BUNDLE, bundle
from sparring.contract.report import Report
from sparring.contract.resources import JobInfo
from sparring.contract.retrained import RetrainReport
from sparring.errors import UsageProblem
from sparring.paths import check_folder, kind_of
from sparring.reports.card import CARD, ROBUSTBENCH, card, robustbench
from sparring.sdk import Client
from sparring.show import say

_BY_SUFFIX = {
    ".html": "report.html",
    ".json": "report.json",
    ".md": "report.md",
    ".csv": "rows.csv",
    ".parquet": "rows.parquet",
    ".npz": "examples.npz",
    ".zip": BUNDLE,
}


_OF_TRAINING = {
    ".html": "report.html",
    ".json": "report.json",
    ".md": "report.md",
    ".npz": "test.npz",
    ".pt2": "model.pt2",
    ".safetensors": "model.safetensors",
    ".onnx": "model.onnx",
    ".pt": "model.pt",
}


MADE: dict[str, Callable[[Report], str]] = {CARD: card, ROBUSTBENCH: robustbench}
"""What is made of a report here, by the ending of the name."""


class Output(NamedTuple):
    """A file to write, and the job's file it is a copy of, or one of those made here."""

    path: Path
    artifact: str


def outputs(paths: Sequence[Path], *, crafting: bool = False, training: bool = False, said: str = "-o") -> tuple[Output, ...]:
    """What each `-o` asks for.

    Args:
        paths: as given.
        crafting: an .npz means the crafted dataset, unless it is called examples.npz.
        training: they are of a job that trains: the model in any of its forms, the report, and the test rows as an .npz.
        said: the option by which they were given.

    Raises:
        UsageProblem: unknown suffix, no such folder, a folder in the way, not writable, the same file twice.
    """
    found: list[Output] = []
    known = _OF_TRAINING if training else _BY_SUFFIX
    for path in paths:
        made = next((ending for ending in MADE if re.search(rf"(^|[-_. ]){re.escape(ending)}$", path.name.lower())), None)
        artifact = made or known.get(path.suffix.lower())
        if artifact is None:
            hint = f"Known are {', '.join((*known, *MADE))}"
            raise UsageProblem(f"{said} {path}: nothing is written as {path.suffix or 'a file without a suffix'}", hint)
        if crafting and artifact == "examples.npz" and path.name != "examples.npz":
            artifact = "crafted.npz"
        check_folder(path, f"{said} ")
        if kind_of(path, f"{said} ") == "folder":
            raise UsageProblem(f"{said} {path}: this is a folder, not a file")
        if any(path.resolve() == other.path.resolve() for other in found):
            raise UsageProblem(f"{said} {path} is given twice")
        found.append(Output(path, artifact))
    return tuple(found)


def write(client: Client, job: JobInfo, wanted: Sequence[Output]) -> None:
    """Download each file that was asked for, and say where it lies; one that the job did not leave is told, not raised."""
    left = {artifact.name for artifact in job.artifacts}
    for path, artifact in wanted:
        if artifact == BUNDLE:
            bundle(client, job, path)
            say(f"wrote {path}")
        elif artifact in MADE:
            _make(client, job, path, MADE[artifact])
            say(f"wrote {path}")
        elif artifact in left:
            client.jobs.artifact(job.id, artifact, path)
            say(f"wrote {path}")
        else:
            say(f"{path} is not written: the job left no {artifact}")


def _make(client: Client, job: JobInfo, path: Path, make: Callable[[Report], str]) -> None:
    """Of a job that has trained, it is the report of the model that came of it."""
    found = client.jobs.any_report(job.id)
    try:
        path.write_text(make(found.best.after if isinstance(found, RetrainReport) else found), encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{path} cannot be written: {error.strerror}") from error

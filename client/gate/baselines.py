"""The file of baselines: read by the gate, written by one command."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from sparring.contract.early import packed
from sparring.contract.gate import Policy
from sparring.contract.report import Report
from sparring.contract.verdict import Baseline, Baselines
from sparring.errors import UsageProblem
from sparring.gate.judge import Evidence, key_of
from sparring.paths import check_folder, kind_of

LARGEST = 64 << 20
"""Bytes the file may have."""


def load(path: Path) -> Baselines:
    """The baselines at `path`; none where there is no such file. UsageProblem for a file that holds something else."""
    if kind_of(path) == "nothing":
        return Baselines()
    hint = "Bring it back from version control, or remove it and accept a baseline anew"
    try:
        if path.stat().st_size > LARGEST:
            raise UsageProblem(f"{path} is larger than {LARGEST >> 20} MiB", hint)
        return Baselines.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise UsageProblem(f"{path} holds no baselines ({where}{': ' if where else ''}{fault['msg']})", hint) from None


def save(path: Path, baselines: Baselines) -> None:
    """Write the file whole or not at all. UsageProblem where that cannot be done."""
    check_folder(path)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8") as file:
            file.write(baselines.model_dump_json(indent=1) + "\n")
        Path(file.name).chmod(0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise UsageProblem(f"{path} cannot be written: {error.strerror}") from error


def accepted(policy: Policy, evidence: Evidence, model: str, branch: str | None, now: datetime | None = None) -> tuple[Baseline, ...]:
    """Baselines of an evaluation: one of the clean accuracy, one of each threat. UsageProblem where rows do not begin with the first."""
    report, rows = evidence.report, evidence.rows
    if any(each.rows != tuple(range(report.clean.total)) for each in rows):
        raise UsageProblem("The rows evaluated are not the first ones of the data, and cannot be told again later")
    stood = {None: rows[0].right} | {at: each.stood for at, each in enumerate(rows)}
    return tuple(_baseline(policy, report, model, at, right, branch, now or datetime.now(UTC)) for at, right in stood.items())


def _baseline(
    policy: Policy, report: Report, model: str, at: int | None, stood: tuple[bool, ...], branch: str | None, now: datetime
) -> Baseline:
    key = key_of(policy, report, model, at, branch)
    return Baseline(key=key, sha256=report.model.sha256, rows=len(stood), right=packed(stood), accepted=now)

"""A policy on disk, and evidence as an evaluation leaves it."""

import io
from pathlib import Path

from sparring.contract.jobs import Evaluate
from sparring.contract.report import Report, Score, Trust
from sparring.contract.threat import Threat
from sparring.gate.judge import Evidence
from sparring.gate.policy import Read, read
from sparring.reports.rows import Outcomes, Row, write_csv
from tests.reports import factory

NEAR = Threat(norm="linf", eps="4/255")
ROWS = 200
HEAD = """\
version: 1
model: {path: net.pt2, name: net}
data: {path: data.npz}
evaluate: {skip_proved: true}
threats:
  near: {norm: linf, eps: 4/255}
rules:
"""


def policy(folder: Path, *rules: str, more: str = "") -> Read:
    """A policy with these rules, one to a line from line 8 on."""
    path = folder / "gate.yaml"
    path.write_text(HEAD + "".join(f"  - {{{rule}}}\n" for rule in rules) + more)
    return read(path)


def report(
    right: int = 190, stood: int = 150, *, level="unchecked", labelled: bool = True, proved: int | None = 100, sha: str = ""
) -> Report:
    """Of ROWS rows so many are right, and so many stand."""
    made = factory.report(threats=(NEAR,), labelled=labelled)
    result = made.threats[0].model_copy(
        update={
            "worst": Score(count=stood, total=ROWS),
            "trust": Trust(level=level),
            "proved": proved,
            "classes": tuple(
                one.model_copy(update={"robust": Score(count=stood // 10, total=ROWS // 10)}) for one in made.threats[0].classes
            ),
        }
    )
    job = Evaluate(model=made.job.model, data=made.job.data, threats=(NEAR,), skip_proved=True)
    changes = {"clean": Score(count=right, total=ROWS), "threats": (result,), "job": job}
    model = made.model.model_copy(update={"sha256": sha or made.model.sha256})
    return made.model_copy(update={**changes, "model": model})


def evidence(right: int = 190, stood: int = 150, **given) -> Evidence:
    """The same with its rows: the first are right, and the first of these stand."""
    rows = range(ROWS)
    outcome = Outcomes(tuple(rows), tuple(r < right for r in rows), tuple(r < stood for r in rows), tuple(50 + r for r in rows))
    return Evidence(report(right, stood, **given), (outcome,), "job_" + "a" * 20)


def rows_csv(found: Evidence) -> bytes:
    """rows.csv of some evidence."""
    (outcome,) = found.rows
    lines = [
        Row(row, 3, 3 if right else 4, "linf", NEAR.radius, int(not stood), "" if stood else "pgd", 4, None, queries, 1, None, None)
        for row, right, stood, queries in zip(*outcome, strict=True)
    ]
    file = io.StringIO(newline="")
    write_csv(lines, file)
    return file.getvalue().encode()

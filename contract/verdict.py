"""What a gate decided, and the baselines it compared with."""

import hashlib
from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from sparring.contract.attacks import SUITES, Knowledge
from sparring.contract.base import Frozen
from sparring.contract.early import Stood
from sparring.contract.fields import Ident, Sha256
from sparring.contract.gate import Branch
from sparring.contract.jobs import Evaluate
from sparring.contract.quantity import as_written
from sparring.contract.report import Count, Finding, Report
from sparring.contract.resources import Name
from sparring.contract.threat import Norm, Threat

Status = Literal["pass", "violated", "inconclusive", "not_applied"]
ExitCode = Literal[0, 1, 2, 3, 5]
WORDS: dict[ExitCode, str] = {0: "pass", 1: "violated", 2: "could not evaluate", 3: "nothing evaluated", 5: "inconclusive"}
"""What each exit code means; 4, bad usage or a faulty policy, ends before there is a verdict."""


class ThreatIdentity(Frozen):
    """All that must agree before two numbers under a threat may be compared, beside data and attacks."""

    norm: Norm
    eps: float
    targeted: bool
    bounds: tuple[float, float] | Literal["none"]
    scale: float
    """Stored numbers were multiplied by this: eps is in units of the product."""
    knowledge: tuple[Knowledge, ...]

    def difference(self, other: "ThreatIdentity") -> str:
        """`eps 0.1 against 0.2, …`; empty where they are the same."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ThreatIdentity.model_fields)
        return ", ".join(f"{name} {_shown(one)} against {_shown(two)}" for name, one, two in pairs if one != two)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return as_written(value)
    return ", ".join(map(_shown, value)) if isinstance(value, tuple) else str(value)


def threat_identity(report: Report, threat: Threat) -> ThreatIdentity:
    """The identity of one of a report's threats."""
    spec = report.data.spec
    knowledge = report.job.knowledge if isinstance(report.job, Evaluate) else {report.job.attack.knowledge}
    return ThreatIdentity(
        norm=threat.norm,
        eps=threat.radius,
        targeted=threat.targeted,
        bounds=spec.bounds or "none",
        scale=spec.scale or 1.0,
        knowledge=tuple(sorted(knowledge)),
    )


def suite_version(job: Evaluate) -> str:
    """What attacks: `standard@1`; where the job lists them, `attacks@` and the digest of their settings. `+fast` in few digits."""
    if job.suite:
        named = SUITES[job.suite][0]
    else:
        written = TypeAdapter(tuple[object, ...]).dump_json(tuple(attack.model_dump(mode="json") for attack in job.attacks))
        named = f"attacks@{hashlib.sha256(written).hexdigest()[:16]}"
    return named if job.precision == "exact" else f"{named}+{job.precision}"


class BaselineKey(Frozen):
    """What a baseline belongs to: with any part of it changed, there is nothing to compare with."""

    branch: Branch
    model: Name
    data: Sha256
    threat: ThreatIdentity | None
    """None for the accuracy on the rows as they are."""
    suite: Annotated[str, Field(max_length=100)]
    """Version of the suite; empty for the accuracy on the rows as they are."""


class Baseline(Stood):
    """What became of every row when it was accepted."""

    key: BaselineKey
    accepted: datetime


class Baselines(Frozen):
    """A file of baselines."""

    version: Literal[1] = 1
    entries: tuple[Baseline, ...] = ()

    def get(self, key: BaselineKey) -> Baseline | None:
        """The baseline that belongs to `key`."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def replaced(self, fresh: Iterable[Baseline]) -> "Baselines":
        """With these in place of those of the same keys; sorted, so that files change no more than they must."""
        by_key = {entry.key.model_dump_json(): entry for entry in (*self.entries, *fresh)}
        return Baselines(entries=tuple(by_key[name] for name in sorted(by_key)))


class Flips(Frozen):
    """Two outcomes of the same rows beside each other."""

    rows: Count
    lost: Count
    """Right before and not now."""
    won: Count
    """Right now and not before."""
    drop: float
    """(lost - won) / rows."""
    interval: tuple[float, float]
    """Paired 95 % interval of the drop."""
    p: float
    """Of McNemar's exact test: how likely flips so one-sided are, if rows flip either way alike."""


class AppliedWaiver(Frozen):
    """The waiver by which a rule that does not hold was forgiven."""

    id: Ident
    reason: str
    approved_by: str
    expires: date


class RuleResult(Frozen):
    """What became of one rule."""

    id: Ident
    metric: str
    threat: str | None
    """The name of its threat in the policy."""
    level: Literal["error", "warning"]
    line: Annotated[int, Field(ge=1)]
    """Of the policy."""
    status: Status
    asked: str
    """What must hold, in words."""
    found: str = ""
    """What was measured, in words."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Ends of the interval."""
    limit: float | None = None
    samples: Count | None = None
    flips: Flips | None = None
    why: str
    """Why the status is what it is."""
    waiver: AppliedWaiver | None = None
    notes: tuple[str, ...] = ()
    """Of waivers that could not be applied, or were not needed."""

    @property
    def blocks(self) -> bool:
        """It is what keeps the gate from passing."""
        return self.level == "error" and self.waiver is None and self.status in ("violated", "inconclusive")


class Subject(Frozen):
    """A model or a dataset."""

    name: str
    sha256: str = ""


class Verdict(Frozen):
    """What a gate decided."""

    version: Literal[1] = 1
    exit_code: ExitCode
    policy: str
    """The policy's path, as it was given."""
    policy_sha256: Sha256
    model: Subject
    data: Subject
    rows: Count = 0
    suite: str = ""
    job: str = ""
    """Id of the evaluation."""
    rules: tuple[RuleResult, ...]
    warnings: tuple[Finding, ...] = ()
    """Of the report: what must be known before its numbers are believed."""
    reason: str = ""
    """Why nothing could be evaluated."""
    hint: str = ""
    place: str = ""
    """Where the report lies."""

    @property
    def word(self) -> str:
        """The exit code in words."""
        return WORDS[self.exit_code]


def exit_code(rules: Iterable[RuleResult]) -> ExitCode:
    """What the rules come to: 3 where none was applied, else 1 where one is violated, else 5 where one is inconclusive, else 0."""
    applied = [rule for rule in rules if rule.status != "not_applied"]
    if not applied:
        return 3
    blocking = {rule.status for rule in applied if rule.blocks}
    return 1 if "violated" in blocking else 5 if "inconclusive" in blocking else 0

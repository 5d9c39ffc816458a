"""Sample verdicts."""

from datetime import date

from sparring.contract.report import Finding
from sparring.contract.verdict import AppliedWaiver, RuleResult, Subject, Verdict, exit_code

SHA = "cd" * 32
HOSTILE = "<script>alert(1)</script> ![x](javascript:1) | ::error::x ##vso[task] ##[error]\n\u202e\x07`@org/team` ]]> &amp; $(id)"
"""What a user might call something."""


def rule(**changes) -> RuleResult:
    given = {
        "id": "robust-near",
        "metric": "robust",
        "threat": "near",
        "level": "error",
        "line": 12,
        "status": "pass",
        "asked": "at least 40 %",
        "found": "43.1 % [40.0, 46.2]",
        "value": 0.431,
        "low": 0.4,
        "high": 0.462,
        "limit": 0.4,
        "samples": 1000,
        "why": "the lower end of the interval reaches 40 %",
    }
    return RuleResult(**given | changes)


def waiver(**changes) -> AppliedWaiver:
    given = {"id": "cats", "reason": "see #123", "approved_by": "a.person", "expires": date(2030, 1, 31)}
    return AppliedWaiver(**given | changes)


ALL = (
    rule(),
    rule(id="clean", metric="clean", threat=None, status="violated", line=20),
    rule(id="slow", metric="time", threat=None, status="violated", level="warning", line=25),
    rule(id="drop", status="inconclusive", line=30, value=None, low=None, high=None, found=""),
    rule(id="cats", metric="worst_class", status="violated", waiver=waiver(), line=35),
    rule(id="later", status="not_applied", why="it was not among the rules asked for (--rule)", found="", value=None, line=40),
)
"""A rule of every status."""


def verdict(*rules: RuleResult, **changes) -> Verdict:
    rules = rules or ALL
    given = {
        "exit_code": exit_code(rules),
        "policy": "ci/gate one.yaml",
        "policy_sha256": SHA,
        "model": Subject(name="digits.pt2", sha256=SHA),
        "data": Subject(name="digits.npz", sha256=SHA),
        "rows": 1000,
        "suite": "quick@1",
        "job": "job_" + "a" * 20,
        "rules": rules,
        "warnings": (Finding(code="chance_accuracy", message="The clean accuracy is no better than chance.", hint="Check the labels."),),
        "place": "sparring report open job_" + "a" * 20,
    }
    return Verdict(**given | changes)


def hostile() -> Verdict:
    """Every word that a user controls is hostile."""
    bad = rule(why=HOSTILE, found=HOSTILE, status="violated", waiver=waiver(reason=HOSTILE, approved_by=HOSTILE), notes=(HOSTILE,))
    finding = Finding(code="x", message=HOSTILE, hint=HOSTILE)
    names = {"model": Subject(name=HOSTILE), "data": Subject(name=HOSTILE), "policy": HOSTILE, "place": HOSTILE, "suite": HOSTILE}
    return verdict(bad, rule(id="other", status="violated", why=HOSTILE), warnings=(finding,), **names)


def failed() -> Verdict:
    """An evaluation that failed."""
    unknown = {"status": "not_applied", "waiver": None, "value": None, "found": "", "why": "the evaluation failed"}
    rules = tuple(each.model_copy(update=unknown) for each in ALL)
    return verdict(*rules, exit_code=2, reason="The service cannot be reached", hint="Check SPARRING_URL", place="", rows=0)

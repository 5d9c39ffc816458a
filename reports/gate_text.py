"""The words of a verdict, as the terminal and every file of it say them. What a user wrote comes out on one line, and inert."""

import re

from sparring.contract.verdict import RuleResult, Verdict
from sparring.reports import text

STATUS = {"pass": "pass", "violated": "VIOLATED", "inconclusive": "INCONCLUSIVE", "not_applied": "not applied"}
LEVEL = {"error": "", "warning": " (warning)"}
METRIC = {
    "clean": "clean accuracy",
    "robust": "robust accuracy",
    "worst_class": "worst class",
    "certified": "certified accuracy",
    "queries": "queries",
    "trust": "trust",
    "time": "time",
}
COLUMNS = ("rule", "what", "asked", "found", "status", "why")


def inert(value: str) -> str:
    """Text on one line, everything unseen shown, and no command of a CI runner in it (`::error::`, `##[command]`, `##vso[`)."""
    line = " ".join(text.visible(value).split())
    return re.sub(r"#(?=#(\[|vso\[))|:(?=:[a-z])", lambda found: f"{found[0]} ", line)


def status(rule: RuleResult) -> str:
    """`pass`, `VIOLATED`, `VIOLATED (warning)`, `VIOLATED, waived by …`."""
    waived = f", waived by {rule.waiver.id}" if rule.waiver else ""
    return f"{STATUS[rule.status]}{LEVEL[rule.level] if rule.status not in ('pass', 'not_applied') else ''}{waived}"


def what(rule: RuleResult) -> str:
    """`robust accuracy, near`."""
    return METRIC[rule.metric] + (f", {rule.threat}" if rule.threat else "")


def why(rule: RuleResult) -> str:
    """Why a rule's status is what it is, who forgave it until when, and what is to be said of other waivers."""
    waived = [f"waived until {rule.waiver.expires} by {rule.waiver.approved_by}: {rule.waiver.reason}"] if rule.waiver else []
    return inert("; ".join([rule.why, *waived, *rule.notes]))


def sentence(rule: RuleResult) -> str:
    """A rule and what became of it."""
    return inert(f"{what(rule)}: asked {rule.asked}, found {rule.found or 'nothing'}: {why(rule)}")


def headline(verdict: Verdict) -> str:
    """The verdict in a line."""
    subject = f"{inert(verdict.model.name)} on {inert(verdict.data.name)}"
    said = verdict.word.upper() if verdict.exit_code != 0 else "PASS"
    return f"{said}: {_counted(verdict)}; {subject}{f', {text.number(verdict.rows)} rows' if verdict.rows else ''}"


def _counted(verdict: Verdict) -> str:
    if verdict.reason:
        return inert(verdict.reason)
    applied = [rule for rule in verdict.rules if rule.status != "not_applied"]
    held = sum(rule.status == "pass" for rule in applied)
    waived = sum(rule.waiver is not None for rule in applied)
    blocking = sum(rule.blocks for rule in applied)
    parts = [f"{held} of {len(applied)} rules hold"]
    parts += [f"{blocking} {'keeps' if blocking == 1 else 'keep'} the gate shut"] if blocking else []
    parts += [f"{waived} waived"] if waived else []
    parts += [f"{len(verdict.rules) - len(applied)} not applied"] if len(applied) < len(verdict.rules) else []
    return ", ".join(parts)


def rows(verdict: Verdict) -> tuple[tuple[str, ...], ...]:
    """A line of the table for each rule, under COLUMNS."""
    return tuple((rule.id, what(rule), rule.asked, inert(rule.found) or "–", status(rule), why(rule)) for rule in verdict.rules)


def warnings(verdict: Verdict) -> tuple[str, ...]:
    """What must be known before the numbers are believed."""
    return tuple(inert(f"{finding.message} {finding.hint}") for finding in verdict.warnings)


def place(verdict: Verdict) -> str:
    """Where the report lies, or why there is none."""
    return f"report: {inert(verdict.place)}" if verdict.place else "report: there is none"

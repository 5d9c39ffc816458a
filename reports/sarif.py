"""A verdict as SARIF 2.1.0: a result for each rule, at its line of the policy."""

import hashlib
import json
import re
from typing import Any
from urllib.parse import quote

from sparring.contract.verdict import RuleResult, Verdict
from sparring.reports import gate_text

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
KINDS = {"pass": "pass", "violated": "fail", "inconclusive": "open", "not_applied": "notApplicable"}
"""By status; of those that are not `fail` the standard wants the level `none`."""


def sarif(verdict: Verdict, version: str = "") -> str:
    """The verdict as code scanning reads it.

    Args:
        verdict: what was decided.
        version: of Sparring.
    """
    driver = {"name": "Sparring", "rules": [_descriptor(rule) for rule in verdict.rules], **({"version": version} if version else {})}
    invocation: dict[str, Any] = {"executionSuccessful": verdict.exit_code != 2, "exitCode": verdict.exit_code}
    if verdict.reason:
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": _message(f"{verdict.reason} {verdict.hint}")}]
    results = [_result(verdict, at, rule) for at, rule in enumerate(verdict.rules)]
    run = {"tool": {"driver": driver}, "invocations": [invocation], "results": results}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _message(value: str) -> dict[str, str]:
    """Text that no viewer takes for a link: brackets are escaped as the standard has it."""
    return {"text": re.sub(r"([\\\[\]])", r"\\\1", gate_text.inert(value))}


def _descriptor(rule: RuleResult) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": _message(f"{gate_text.what(rule)}: {rule.asked}"),
        "defaultConfiguration": {"level": rule.level},
    }


def _result(verdict: Verdict, at: int, rule: RuleResult) -> dict[str, Any]:
    kind = KINDS[rule.status]
    place = {"artifactLocation": {"uri": quote(verdict.policy)}, "region": {"startLine": rule.line}}
    numbers = {name: getattr(rule, name) for name in ("value", "low", "high", "limit", "samples")}
    result: dict[str, Any] = {
        "ruleId": rule.id,
        "ruleIndex": at,
        "kind": kind,
        "level": rule.level if kind == "fail" else "none",
        "message": _message(gate_text.sentence(rule)),
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"sparringRule/v1": hashlib.sha256(f"{verdict.policy}\0{rule.id}".encode()).hexdigest()},
        "properties": {"status": rule.status, **{name: value for name, value in numbers.items() if value is not None}},
    }
    if rule.waiver:
        said = f"{rule.waiver.id}: {rule.waiver.reason} ({rule.waiver.approved_by}, until {rule.waiver.expires})"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": gate_text.inert(said)}]
    return result

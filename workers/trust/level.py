"""From checks to a level of trust."""

from collections.abc import Sequence

from sparring.contract.report import Check, Finding, Trust


def level(checks: Sequence[Check], warnings: Sequence[Finding]) -> Trust:
    """The worst that any check says. A flag that repeats one of the warnings is told in the warning's own words."""
    told = {finding.code: finding for finding in warnings}
    flagged = [check for check in checks if check.state == "flagged"]
    own = [Finding(code=check.code, message=check.message, hint=check.hint, evidence=check.evidence) for check in flagged]
    evidence = tuple(told.get(found.code, found) if check.level == "suspect" else found for check, found in zip(flagged, own, strict=True))
    if any(check.level == "invalid" for check in flagged):
        return Trust(level="invalid", evidence=evidence, checks=tuple(checks))
    if flagged:
        return Trust(level="suspect", evidence=evidence, checks=tuple(checks))
    left_out = any(check.state == "left_out" for check in checks)
    return Trust(level="unchecked" if left_out else "reliable", evidence=(), checks=tuple(checks))

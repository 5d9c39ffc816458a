"""A verdict as a badge: the JSON that shields.io reads from an address."""

import json

from sparring.contract.verdict import Verdict

COLORS = {0: "brightgreen", 1: "red", 2: "lightgrey", 3: "lightgrey", 5: "yellow"}
"""By exit code."""


def badge(verdict: Verdict) -> str:
    """The verdict, with a robust accuracy if there is one: that of the first rule that keeps the gate shut, else of the first."""
    told = [rule for rule in verdict.rules if rule.metric == "robust" and rule.flips is None and rule.value is not None]
    told.sort(key=lambda rule: not rule.blocks)
    number = f", {100 * (told[0].value or 0.0):.1f} %" if told else ""
    said = {"schemaVersion": 1, "label": "robustness", "message": f"{verdict.word}{number}", "color": COLORS[verdict.exit_code]}
    return json.dumps(said, ensure_ascii=False) + "\n"

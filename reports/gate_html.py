"""A verdict as one self-contained page: no script, nothing fetched, everything a user wrote escaped."""

from html import escape
from pathlib import Path

from sparring.contract.verdict import Verdict
from sparring.reports import gate_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_TONE = {0: "reliable", 1: "invalid", 2: "unchecked", 3: "unchecked", 5: "suspect"}
"""Classes of the report's style, by exit code."""


def html(verdict: Verdict) -> str:
    """The verdict as one HTML page that opens, mails and prints anywhere."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    head = "".join(f'<th scope="col">{column}</th>' for column in gate_text.COLUMNS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in gate_text.rows(verdict))
    warnings = "".join(f'<div class="finding"><p>{escape(warning)}</p></div>' for warning in gate_text.warnings(verdict))
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(gate_text.inert(value))}</dd></div>" for name, value in _facts(verdict) if value)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Robustness gate: {escape(verdict.word)}</title>
<style>
{css}
</style>
</head>
<body>
<header>
<p class="eyebrow">Sparring gate</p>
<h1>{escape(gate_text.headline(verdict))}</h1>
<p class="trust {_TONE[verdict.exit_code]}">exit code {verdict.exit_code}: {escape(verdict.word)}</p>
<p class="byline">{escape(gate_text.place(verdict))}</p>
</header>
<section><h2>Rules</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></div></section>
{f'<section class="warnings"><h2>Warnings</h2><div>{warnings}</div></section>' if warnings else ""}
<section><h2>Facts</h2><dl class="facts">{facts}</dl></section>
</body>
</html>
"""


def _facts(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    return (
        ("policy", f"{verdict.policy}, sha256 {verdict.policy_sha256}"),
        ("model", f"{verdict.model.name}, sha256 {verdict.model.sha256}" if verdict.model.sha256 else verdict.model.name),
        ("data", f"{verdict.data.name}, sha256 {verdict.data.sha256}" if verdict.data.sha256 else verdict.data.name),
        ("attacks", verdict.suite),
        ("job", verdict.job),
        ("what to do", verdict.hint),
    )

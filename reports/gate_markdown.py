"""A verdict as Markdown, for job summaries and pull requests."""

from sparring.contract.verdict import Verdict
from sparring.reports import gate_text
from sparring.reports.markdown import escape

LARGEST = 60_000
"""Bytes: a comment on GitHub takes 65,536, a job summary 1 MiB."""


def markdown(verdict: Verdict, largest: int = LARGEST) -> str:
    """The verdict in GitHub's Markdown; everything a user wrote is escaped. Of more rules than fit the last are left out, and counted."""
    head, *_ = gate_text.headline(verdict).partition(":")
    top = f"## Robustness gate: {escape(head.lower())}\n\n{escape(gate_text.headline(verdict))}\n\n"
    title = f"| {' | '.join(gate_text.COLUMNS)} |\n|{' --- |' * len(gate_text.COLUMNS)}\n"
    end = "".join(f"\n- warning: {escape(warning)}" for warning in gate_text.warnings(verdict)[:20])
    end += f"\n\n{escape(gate_text.place(verdict))}\n"
    lines = [f"| {' | '.join(map(escape, row))} |\n" for row in gate_text.rows(verdict)]
    spare = largest - len(f"{top}{title}{end}".encode()) - 100
    kept: list[str] = []
    for line in lines:
        spare -= len(line.encode())
        if spare < 0:
            break
        kept.append(line)
    more = f"\nand {len(lines) - len(kept)} more rules, which are left out here\n" if len(kept) < len(lines) else ""
    return f"{top}{title}{''.join(kept)}{more}{end}"

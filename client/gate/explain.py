"""What a policy means, in words."""

from datetime import UTC, datetime

from sparring import show
from sparring.contract import betting
from sparring.contract.early import ALPHA
from sparring.contract.gate import AnyRule, Policy, Sampled, Waiver, threat_of
from sparring.contract.verdict import Baselines, suite_version
from sparring.gate.early import needs_every_row
from sparring.gate.judge import asked
from sparring.gate.policy import Read
from sparring.reports import compare, gate_text, text


def explain(read: Read, baselines: Baselines, model: str) -> None:
    """Print it."""
    policy = read.policy
    job = policy.job("0" * 64, "0" * 64)
    threats = (f"{name} ({text.threat_text(threat)})" for name, threat in policy.threats.items())
    attacks = job.attacks or job.against(job.threats[0])
    mine = [entry for entry in baselines.entries if (entry.key.model, entry.key.branch) == (model, policy.baseline.branch)]
    show.facts(
        [
            ("model", gate_text.inert(policy.model.path or policy.model.ref or "")),
            ("data", gate_text.inert(policy.data.path or policy.data.ref or "")),
            ("rows", f"the first {text.number(job.rows)}" if job.rows else "all"),
            ("ends", _end(policy)),
            ("threats", ", ".join(threats)),
            ("attacks", f"{suite_version(job)}: {', '.join(text.attack_word(attack) for attack in attacks)}"),
            ("baselines", f"{len(mine)} of {model!r}, branch {policy.baseline.branch!r}, in {gate_text.inert(policy.baseline.file)}"),
        ]
    )
    lines = [(f"{read.line('rules', at)}", rule.id, _what(rule), asked(rule), _else(rule)) for at, rule in enumerate(policy.rules)]
    show.table("\nrules", ("line", "rule", "what", "asked", "otherwise"), lines, ("line",))
    if policy.waivers:
        show.table("\nwaivers", ("waiver", "forgives", "state", "reason"), [_waiver(waiver) for waiver in policy.waivers])
    for note in _notes(policy):
        show.tell(note)


def _end(policy: Policy) -> str:
    if policy.evaluate.stop != "early":
        return "when all of them are evaluated"
    if slow := needs_every_row(policy):
        return f"when all of them are evaluated: {', '.join(slow)} {'needs' if len(slow) == 1 else 'need'} every row"
    return "as soon as each rule on clean and robust is decided"


def _what(rule: AnyRule) -> str:
    return gate_text.METRIC[rule.metric] + (f", {threat_of(rule)}" if threat_of(rule) else "")


def _else(rule: AnyRule) -> str:
    """What becomes of a rule that does not hold."""
    end = "a warning" if rule.level == "warning" else "exit 1"
    if isinstance(rule, Sampled) and rule.on_inconclusive != "violated":
        open_ = {"inconclusive": "exit 5", "pass": "passes"}[rule.on_inconclusive] if rule.level == "error" else "a warning"
        return f"violated: {end}; inconclusive: {open_}"
    return end


def _waiver(waiver: Waiver) -> tuple[str, str, str, str]:
    left = (waiver.expires - datetime.now(UTC).date()).days
    state = f"expired on {waiver.expires}" if left < 0 else f"until {waiver.expires} ({left} days)"
    floor = f", down to {100 * waiver.floor:g} %" if waiver.floor is not None else ""
    return waiver.id, f"{', '.join(waiver.scope)}{floor}", state, gate_text.inert(f"{waiver.reason} ({waiver.approved_by})")


def _notes(policy: Policy) -> list[str]:
    """Rules that fewer rows than some number cannot satisfy."""
    early = policy.evaluate.stop == "early" and not needs_every_row(policy)
    least = {rule.id: _least(rule.min, early) for rule in policy.rules if rule.metric in ("clean", "robust", "certified") and rule.min}
    never = [f"{name} can never hold: no number of rows shows that every row stands" for name, rows in least.items() if rows is None]
    few = [
        f"{name} needs {rows} rows at least, and the policy evaluates {policy.evaluate.rows}"
        for name, rows in least.items()
        if rows is not None and policy.evaluate.rows is not None and policy.evaluate.rows < rows
    ]
    return [f"note: {told}" for told in never + few]


def _least(rate: float, early: bool) -> int | None:
    """Rows that show a rate if all of them stand; None where no number of them does."""
    if not early:
        return compare.enough(rate)
    return betting.least(rate, ALPHA) if rate < 1 else None

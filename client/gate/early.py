"""What an evaluation must answer before it may end: the rules of a policy as questions that a worker can answer without it."""

from collections.abc import Collection, Sequence
from typing import Literal

from sparring.contract.early import Early, Question
from sparring.contract.gate import AnyRule, CertifiedRule, CleanRule, Policy, QueriesRule, RobustRule, WorstClassRule, threat_of
from sparring.contract.specs import DataSpec
from sparring.contract.verdict import Baseline, BaselineKey, Baselines, ThreatIdentity, suite_version

Stop = Literal["full"] | Early


def needs_every_row(policy: Policy, only: Collection[str] = ()) -> tuple[str, ...]:
    """Ids of the rules that are decided on all rows alone; with one of them an evaluation runs in full."""
    return tuple(rule.id for rule in _applied(policy, only) if isinstance(rule, (WorstClassRule, CertifiedRule, QueriesRule)))


def stop(policy: Policy, baselines: Baselines, model: str, data: str, spec: DataSpec, only: Collection[str] = ()) -> Stop:
    """When the evaluation of a policy ends.

    Args:
        policy: whose evaluation it is.
        baselines: what rules with a max_drop compare with. One without a baseline cannot be decided, and is not waited for; where it takes
            a worker to find out which of several is meant, the evaluation runs in full.
        model: the name baselines of the model are kept under.
        data: sha256 of the data.
        spec: what is declared about them.
        only: rules to apply; all unless given.
    """
    if policy.evaluate.stop != "early" or needs_every_row(policy, only):
        return "full"
    questions = []
    for rule in _applied(policy, only):
        if not isinstance(rule, (CleanRule, RobustRule)):
            continue
        name = threat_of(rule)
        at = None if name is None else list(policy.threats).index(name)
        known = [entry for entry in baselines.entries if _belongs(policy, at, entry.key, model, data, spec)]
        if rule.max_drop is not None and len(known) > 1:
            return "full"
        if rule.max_drop is None or known:
            questions.append(_question(rule, at, known))
    return Early(questions=tuple(questions)) if questions else "full"


def _applied(policy: Policy, only: Collection[str]) -> tuple[AnyRule, ...]:
    return tuple(rule for rule in policy.rules if not only or rule.id in only)


def _question(rule: CleanRule | RobustRule, threat: int | None, known: Sequence[Baseline]) -> Question:
    common = {"id": rule.id, "threat": threat, "least": rule.min_samples}
    if rule.max_drop is None:
        return Question(min=rule.min, **common)
    return Question(max_drop=rule.max_drop, before=known[0].model_dump(include={"sha256", "rows", "right"}), **common)


def _belongs(policy: Policy, at: int | None, key: BaselineKey, model: str, data: str, spec: DataSpec) -> bool:
    """By all that is known before the run; `judge` looks at the whole key."""
    if (key.branch, key.model, key.data) != (policy.baseline.branch, model, data):
        return False
    job = policy.job("0" * 64, "0" * 64)
    if at is None or key.threat is None:
        return at is None and key.threat is None
    threat, there = job.threats[at], key.threat
    own = (threat.norm, threat.radius, threat.targeted, tuple(sorted(job.knowledge)), suite_version(job))
    return own == (there.norm, there.eps, there.targeted, there.knowledge, key.suite) and _read_so(spec, there)


def _read_so(spec: DataSpec, there: ThreatIdentity) -> bool:
    """Whether data that are declared so may be read so: only bytes can do without bounds, and other numbers are as they are."""
    scales = (spec.scale,) if spec.scale else (1 / 255,) if spec.bounds is None else (1 / 255, 1.0)
    return there.bounds == (spec.bounds or (0.0, 1.0)) and there.scale in scales

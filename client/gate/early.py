"""What an evaluation must answer before it may end: the rules of a policy as questions that a worker can answer without it."""

from collections.abc import Collection
from typing import Literal

from sparring.contract.early import Early, Question
from sparring.contract.gate import AnyRule, CertifiedRule, CleanRule, Policy, QueriesRule, RobustRule, WorstClassRule, threat_of
from sparring.contract.verdict import Baseline, Baselines, suite_version

Stop = Literal["full"] | Early


def needs_every_row(policy: Policy, only: Collection[str] = ()) -> tuple[str, ...]:
    """Ids of the rules that are decided on all rows alone; with one of them an evaluation runs in full."""
    return tuple(rule.id for rule in _applied(policy, only) if isinstance(rule, (WorstClassRule, CertifiedRule, QueriesRule)))


def stop(policy: Policy, baselines: Baselines, model: str, data: str, only: Collection[str] = ()) -> Stop:
    """When the evaluation of a policy ends.

    Args:
        policy: whose evaluation it is.
        baselines: what rules with a max_drop compare with. One without a baseline cannot be decided, and is not waited for.
        model: the name baselines of the model are kept under.
        data: sha256 of the data.
        only: rules to apply; all unless given.
    """
    if policy.evaluate.stop != "early" or needs_every_row(policy, only):
        return "full"
    asked = (_question(policy, rule, baselines, model, data) for rule in _applied(policy, only))
    questions = tuple(each for each in asked if each is not None)
    return Early(questions=questions) if questions else "full"


def _applied(policy: Policy, only: Collection[str]) -> tuple[AnyRule, ...]:
    return tuple(rule for rule in policy.rules if not only or rule.id in only)


def _question(policy: Policy, rule: AnyRule, baselines: Baselines, model: str, data: str) -> Question | None:
    if not isinstance(rule, (CleanRule, RobustRule)):
        return None
    name = threat_of(rule)
    threat = None if name is None else list(policy.threats).index(name)
    common = {"id": rule.id, "threat": threat, "least": rule.min_samples}
    if rule.max_drop is None:
        return Question(min=rule.min, **common)
    before = _baseline(policy, threat, baselines, model, data)
    if before is None:
        return None
    return Question(max_drop=rule.max_drop, before=before.model_dump(include={"sha256", "rows", "right"}), **common)


def _baseline(policy: Policy, at: int | None, baselines: Baselines, model: str, data: str) -> Baseline | None:
    """By all of its key that is known before the run: bounds and scale are for a worker to find out, and `judge` looks at them."""
    job = policy.job("0" * 64, "0" * 64)
    found = [
        entry
        for entry in baselines.entries
        if (entry.key.branch, entry.key.model, entry.key.data) == (policy.baseline.branch, model, data)
        and entry.key.suite == ("" if at is None else suite_version(job))
        and _same_threat(policy, at, entry)
    ]
    return found[0] if len(found) == 1 else None


def _same_threat(policy: Policy, at: int | None, entry: Baseline) -> bool:
    key = entry.key.threat
    if at is None or key is None:
        return at is None and key is None
    job = policy.job("0" * 64, "0" * 64)
    threat = job.threats[at]
    own = (threat.norm, threat.radius, threat.targeted, tuple(sorted(job.knowledge)))
    return own == (key.norm, key.eps, key.targeted, key.knowledge)

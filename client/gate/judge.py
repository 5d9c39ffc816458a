"""Rules held against a report: pure, so that unchanged inputs give the same verdict."""

import math
from collections.abc import Collection, Iterator
from datetime import date
from typing import Literal, NamedTuple

from sparring.contract.early import Early, Stopped
from sparring.contract.gate import (
    AnyRule,
    CertifiedRule,
    CleanRule,
    Policy,
    QueriesRule,
    RobustRule,
    Sampled,
    TimeRule,
    TrustRule,
    Waiver,
    WorstClassRule,
    threat_of,
)
from sparring.contract.jobs import Evaluate
from sparring.contract.quantity import as_written
from sparring.contract.report import Report, Score, ThreatResult
from sparring.contract.verdict import (
    AppliedWaiver,
    Baseline,
    BaselineKey,
    Baselines,
    Flips,
    RuleResult,
    Status,
    suite_version,
    threat_identity,
)
from sparring.gate.policy import Read
from sparring.reports import compare, text
from sparring.reports.rows import Outcomes

_TRUST = ("invalid", "suspect", "unchecked", "reliable")


class Evidence(NamedTuple):
    """What an evaluation left."""

    report: Report
    rows: tuple[Outcomes, ...]
    """Threat by threat."""
    job: str = ""


class Said(NamedTuple):
    """What is found of a rule, before waivers."""

    status: Status
    why: str
    found: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    flips: Flips | None = None
    invalid: bool = False
    """The number it is about is worthless, which no waiver forgives."""


def judge(
    read: Read, evidence: Evidence, baselines: Baselines, model: str, today: date, only: Collection[str] = ()
) -> tuple[RuleResult, ...]:
    """Each rule of a policy.

    Args:
        read: the policy.
        evidence: of the evaluation it asks for.
        baselines: what is compared with.
        model: the name baselines of the model are kept under.
        today: waivers that expired before do not hold.
        only: rules to apply; all unless given.
    """
    return tuple(
        _result(read, at, rule, _said(read.policy, rule, evidence, baselines, model) if not only or rule.id in only else _NOT_CHOSEN, today)
        for at, rule in enumerate(read.policy.rules)
    )


def unjudged(read: Read, why: str, today: date) -> tuple[RuleResult, ...]:
    """Each rule of a policy of which nothing could be evaluated."""
    return tuple(_result(read, at, rule, Said("not_applied", why), today) for at, rule in enumerate(read.policy.rules))


_NOT_CHOSEN = Said("not_applied", "it was not among the rules asked for (--rule)")


def key_of(policy: Policy, report: Report, model: str, threat: int | None, branch: str | None = None) -> BaselineKey:
    """Where the baseline of a threat is kept, by its index; of the clean accuracy for None."""
    assert isinstance(report.job, Evaluate)
    return BaselineKey(
        branch=branch or policy.baseline.branch,
        model=model,
        data=report.data.sha256,
        threat=None if threat is None else threat_identity(report, report.threats[threat].threat),
        suite="" if threat is None else suite_version(report.job),
    )


def asked(rule: AnyRule) -> str:
    """What a rule asks for, in words."""
    match rule:
        case TrustRule():
            return f"at least {rule.min}"
        case TimeRule():
            return f"at most {text.duration(rule.max)}"
        case QueriesRule():
            return f"median of at least {text.number(rule.min)}"
        case CleanRule() | RobustRule() if rule.max_drop is not None:
            return f"a drop of at most {_points(rule.max_drop)} against the baseline"
    return f"at least {_percent(rule.min or 0.0)}"


def _limit(rule: AnyRule) -> float | None:
    match rule:
        case TrustRule():
            return None
        case TimeRule():
            return rule.max
        case CleanRule() | RobustRule():
            return rule.max_drop if rule.min is None else rule.min
    return rule.min


def _result(read: Read, at: int, rule: AnyRule, said: Said, today: date) -> RuleResult:
    waiver, notes = _waived(read.policy, rule, said, today)
    return RuleResult(
        id=rule.id,
        metric=rule.metric,
        threat=threat_of(rule),
        level=rule.level,
        line=read.line("rules", at),
        asked=asked(rule),
        limit=_limit(rule),
        waiver=waiver,
        notes=notes,
        **{name: _finite(value) for name, value in said._asdict().items() if name != "invalid"},
    )


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _said(policy: Policy, rule: AnyRule, evidence: Evidence, baselines: Baselines, model: str) -> Said:
    """What is found of a rule. Nothing that is about an invalid number passes."""
    name = threat_of(rule)
    said = _found(policy, rule, evidence, baselines, model)
    if name is None:
        return said
    result = evidence.report.threats[list(policy.threats).index(name)]
    if result.trust.level != "invalid":
        return said
    return said._replace(status="violated", why=f"the number is invalid: {_speaks_against(result)}", invalid=True)


def _found(policy: Policy, rule: AnyRule, evidence: Evidence, baselines: Baselines, model: str) -> Said:
    report, name = evidence.report, threat_of(rule)
    at = None if name is None else list(policy.threats).index(name)
    result = report.threats[at or 0]
    match rule:
        case TimeRule():
            return _time(rule, report.cost.wall_seconds)
        case TrustRule():
            return _trust(rule, result)
        case QueriesRule():
            return _queries(rule, evidence.rows[at or 0])
        case WorstClassRule():
            return _worst_class(rule, result)
        case CertifiedRule():
            proved = Score(count=result.proved or 0, total=report.clean.total)
            return _rate(rule, rule.min, _measured(proved))
        case CleanRule() | RobustRule() if rule.max_drop is not None:
            return _drop(rule, rule.max_drop, evidence, baselines, key_of(policy, report, model, at), at)
        case CleanRule() if not report.data.labelled:
            return _undecided(rule, "the data have no labels, so that the clean accuracy is 100 % by definition")
    score = report.clean if at is None else result.worst
    if report.stopped:
        return _answered(rule, report.stopped, _Measured(text.rate(score), score.total))
    return _rate(rule, rule.min or 0.0, _measured(score))


class _Measured(NamedTuple):
    """What was counted on the rows of an evaluation that was to end early."""

    found: str
    samples: int
    flips: Flips | None = None


def _answered(rule: CleanRule | RobustRule, stopped: Stopped, measured: _Measured) -> Said:
    """By the confidence sequence that the worker has followed row by row."""
    answer = next((each for each in stopped.answers if each.id == rule.id), None)
    if answer is None:
        return _undecided(rule, "the evaluation was not asked about it; run it anew")
    unit = "points" if rule.max_drop is not None else "%"
    interval = f"[{100 * answer.low:.1f}, {100 * answer.high:.1f}] {unit}"
    rows = f"{text.number(stopped.rows)} of {text.number(stopped.of)} rows"
    said = Said("inconclusive", "", f"{measured.found} on {rows}, {interval}", answer.value, answer.low, answer.high, measured.samples)
    words = {
        "holds": f"the interval had cleared {_edge(rule)} after {text.number(answer.at)} of {text.number(stopped.of)} rows",
        "fails": f"the interval was beyond {_edge(rule)} after {text.number(answer.at)} of {text.number(stopped.of)} rows",
        "open": f"the interval includes {_edge(rule)} after {rows}: more rows make it narrower, and so does stop: full",
    }
    return _decided(rule, said._replace(flips=measured.flips), answer.word, words)


def _edge(rule: CleanRule | RobustRule) -> str:
    return _percent(rule.min or 0.0) if rule.max_drop is None else _points(rule.max_drop)


def _undecided(rule: Sampled, why: str, measured: Said | None = None) -> Said:
    more = "" if rule.on_inconclusive == "inconclusive" else f" (on_inconclusive: {rule.on_inconclusive})"
    return (measured or Said("inconclusive", ""))._replace(status=rule.on_inconclusive, why=f"{why}{more}")


def _decided(rule: Sampled, measured: Said, verdict: Literal["holds", "fails", "open"], words: dict[str, str]) -> Said:
    """A verdict on an interval in the words for it; fewer rows than are wanted leave it open."""
    if measured.samples is not None and measured.samples < rule.min_samples:
        why = f"{text.number(measured.samples)} rows are too few: min_samples is {text.number(rule.min_samples)}"
        return _undecided(rule, why, measured)
    if verdict == "open":
        return _undecided(rule, words["open"], measured)
    return measured._replace(status="pass" if verdict == "holds" else "violated", why=words[verdict])


def _reaches(low: float, high: float, limit: float) -> Literal["holds", "fails", "open"]:
    return "holds" if low >= limit else "fails" if high < limit else "open"


def _rate(rule: Sampled, limit: float, measured: Said) -> Said:
    low, high = measured.low or 0.0, 1.0 if measured.high is None else measured.high
    words = {
        "holds": f"the lower end of the interval reaches {_percent(limit)}",
        "fails": f"even the upper end of the interval is below {_percent(limit)}",
        "open": f"the interval includes {_percent(limit)}: {_advice(limit, measured.samples or 0)}",
    }
    return _decided(rule, measured, _reaches(low, high, limit), words)


def _advice(limit: float, total: int) -> str:
    needed = compare.enough(limit)
    if needed is None:
        return "no number of rows shows that every row stands"
    return f"with fewer than {needed} rows it cannot be otherwise" if total < needed else "more rows make it narrower"


def _measured(score: Score) -> Said:
    low, high = score.interval
    return Said("inconclusive", "", text.percent(score), score.rate, low, high, score.total)


def _worst_class(rule: WorstClassRule, result: ThreatResult) -> Said:
    if not result.classes:
        return _undecided(rule, "the report counts no classes")
    confidence = 1 - (1 - compare.CONFIDENCE) / len(result.classes)
    worst = min(result.classes, key=lambda one: (one.robust.rate, one.label))
    low, high = map(min, zip(*(one.robust.interval_at(confidence) for one in result.classes), strict=True))
    found = f"{text.rate(worst.robust)} [{100 * low:.1f}, {100 * high:.1f}] (class {worst.label})"
    fewest = min(one.robust.total for one in result.classes)
    return _rate(rule, rule.min, Said("inconclusive", "", found, worst.robust.rate, low, high, fewest))


def _queries(rule: QueriesRule, rows: Outcomes) -> Said:
    each = zip(rows.right, rows.stood, rows.queries, strict=True)
    spent = [math.inf if stood else float(queries) for right, stood, queries in each if right]
    if not spent:
        return _undecided(rule, "no row is right to begin with")
    low, middle, high = compare.median(spent)
    words = {
        "holds": f"the lower end of the median's interval reaches {text.number(rule.min)}",
        "fails": f"even the upper end of the median's interval is below {text.number(rule.min)}",
        "open": f"the median's interval includes {text.number(rule.min)}",
    }
    found = f"{_count(middle)} [{_count(low)}, {_count(high)}]"
    return _decided(rule, Said("inconclusive", "", found, middle, low, high, len(spent)), _reaches(low, high, rule.min), words)


def _count(value: float) -> str:
    return text.number(int(value)) if math.isfinite(value) else "∞"


def _drop(rule: CleanRule | RobustRule, limit: float, evidence: Evidence, baselines: Baselines, key: BaselineKey, at: int | None) -> Said:
    baseline = baselines.get(key)
    if baseline is None:
        return _undecided(rule, f"there is no baseline of {_key_words(key)}; `sparring gate baseline accept` makes one")
    stopped, outcomes = evidence.report.stopped, evidence.rows[at or 0]
    now = outcomes.right if at is None else outcomes.stood
    if baseline.rows != (there := stopped.of if stopped else len(now)) or max(outcomes.rows) >= there:
        return _undecided(rule, f"the baseline has {baseline.rows} rows, and {there} were to be evaluated: accept a new one")
    was = baseline.stood
    flips = compare.flips([was[row] for row in outcomes.rows], now)
    low, high = flips.interval
    found = f"{_points(flips.drop)} [{100 * low:.1f}, {100 * high:.1f}]: {flips.lost} rows lost, {flips.won} won"
    measured = Said("inconclusive", "", found, flips.drop, low, high, flips.rows, flips)
    if baseline.sha256 == evidence.report.model.sha256 and not flips.lost:
        return measured._replace(status="pass", why="this is the model of the baseline, and no row was lost")
    if stopped:
        told = f"{_points(flips.drop)}, {flips.lost} rows lost, {flips.won} won"
        return _answered(rule, stopped if _same(evidence, rule, baseline) else _unasked(stopped), _Measured(told, flips.rows, flips))
    words = {
        "holds": f"the upper end of the paired interval is at most {_points(limit)}",
        "fails": f"even the lower end of the paired interval is above {_points(limit)}",
        "open": f"the paired interval includes {_points(limit)}; McNemar's p is {flips.p:.2g}",
    }
    return _decided(rule, measured, _reaches(-high, -low, -limit), words)


def _same(evidence: Evidence, rule: CleanRule | RobustRule, baseline: Baseline) -> bool:
    """The evaluation compared with this very baseline."""
    stop = evidence.report.job.stop if isinstance(evidence.report.job, Evaluate) else "full"
    before = next((each.before for each in stop.questions if each.id == rule.id), None) if isinstance(stop, Early) else None
    return before is not None and (before.sha256, before.right) == (baseline.sha256, baseline.right)


def _unasked(stopped: Stopped) -> Stopped:
    return stopped.model_copy(update={"answers": ()})


def _key_words(key: BaselineKey) -> str:
    what = "the clean accuracy" if key.threat is None else f"{key.threat.norm} {as_written(key.threat.eps)} under {key.suite}"
    return f"{what} for model {key.model!r} on data {key.data[:12]}…, branch {key.branch!r}"


def _trust(rule: TrustRule, result: ThreatResult) -> Said:
    level = result.trust.level
    good = _TRUST.index(level) >= _TRUST.index(rule.min)
    return Said("pass" if good else "violated", f"{level} is at least {rule.min}" if good else _speaks_against(result), found=level)


def _speaks_against(result: ThreatResult) -> str:
    return "; ".join(finding.message for finding in result.trust.evidence) or text.trust_text(result.trust)


def _time(rule: TimeRule, seconds: float) -> Said:
    good = seconds <= rule.max
    return Said("pass" if good else "violated", f"it took {text.duration(seconds)}", text.duration(seconds), value=seconds)


def _waived(policy: Policy, rule: AnyRule, said: Said, today: date) -> tuple[AppliedWaiver | None, tuple[str, ...]]:
    """The waiver that forgives a rule, if one does, and what is to be said of the others."""
    applied: AppliedWaiver | None = None
    notes = []
    for waiver in (each for each in policy.waivers if rule.id in each.scope):
        if said.status == "not_applied" or applied:
            continue
        if against := "; ".join(_against(waiver, said, today)):
            notes.append(f"waiver {waiver.id} is not applied: {against}")
        else:
            applied = AppliedWaiver(**waiver.model_dump(include={"id", "reason", "approved_by", "expires"}))
    return applied, tuple(notes)


def _against(waiver: Waiver, said: Said, today: date) -> Iterator[str]:
    if said.status == "pass":
        yield "the rule holds without it"
    if said.invalid:
        yield "an invalid number cannot be forgiven"
    if waiver.expires < today:
        yield f"it expired on {waiver.expires}"
    if waiver.floor is not None and not (said.low is not None and said.low >= waiver.floor):
        yield f"the lower end of the interval is below its floor of {_percent(waiver.floor)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _points(rate: float) -> str:
    return f"{100 * rate:.3g} points"

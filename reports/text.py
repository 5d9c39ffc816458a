"""The words and numbers of a report, as html, markdown and the terminal all say them."""

import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from sparring.contract.attacks import AttackBase, AttackSpec, describe
from sparring.contract.certificates import AnyCertificate
from sparring.contract.corruptions import SEVERITIES
from sparring.contract.jobs import Evaluate
from sparring.contract.quantity import as_written
from sparring.contract.report import (
    AttackResult,
    Check,
    Cost,
    CurvePoint,
    Finding,
    MinimalResult,
    Report,
    Score,
    SurrogateResult,
    ThreatResult,
    Trust,
    UniversalResult,
)
from sparring.contract.threat import Norm, Threat

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

TRUST = {
    "reliable": "Reliable: every check was run, and none found a sign that this number is too high. That is no proof.",
    "unchecked": (
        "Unchecked: no sign was found, but checks were left out. A model that hides its gradients may look better here than it is."
    ),
    "suspect": "Suspect: what stands here speaks against this number; settle it before you believe the number.",
    "invalid": "Invalid: a check failed that makes this number worthless; it must not be used.",
}
"""What each level of trust means, in a sentence."""

UNLABELLED = (
    "The data has no labels: the model's own predictions on the clean rows stand in for them, "
    "so each rate says how often a prediction survives, not how often it is right."
)


def visible(text: str) -> str:
    """Text with everything unseen (control, bidirectional and zero-width characters) written as an escape; newlines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else f"\\u{{{ord(c):x}}}" for c in text)


def rate(score: Score) -> str:
    """`43.1 %`; `no rows` of nothing. Only a true 0 or 1 reads `0.0 %` or `100.0 %`."""
    if not score.total:
        return "no rows"
    if score.count > 0 and score.rate < 0.0005:
        return "<0.1 %"
    if score.count < score.total and score.rate >= 0.9995:
        return ">99.9 %"
    return f"{100 * score.rate:.1f} %"


def interval(score: Score) -> str:
    """Wilson's 95 % interval in percent: `[40.0, 46.2]`."""
    low, high = score.interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def percent(score: Score) -> str:
    """Rate and interval: `43.1 % [40.0, 46.2]`; `no rows` of nothing."""
    return f"{rate(score)} {interval(score)}" if score.total else rate(score)


def number(count: int) -> str:
    """A count with its thousands parted: `12,800`."""
    return f"{count:,}"


def fraction(score: Score) -> str:
    """`431 of 1,000`."""
    return f"{number(score.count)} of {number(score.total)}"


def figure(value: float | None) -> str:
    """A measured number to four digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 07 s` or `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in decimal units: `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def threat_text(threat: Threat) -> str:
    """`linf 8/255`, or `l2 0.5, targeted`."""
    eps = threat.eps if isinstance(threat.eps, str) else as_written(threat.eps)
    return f"{threat.norm} {eps}{', targeted' if threat.targeted else ''}"


def trust_text(trust: Trust) -> str:
    """The level of trust in a sentence or two, with the checks that were left out."""
    named = ", ".join(map(check_name, trust.left_out))
    return f"{TRUST[trust.level]} Left out: {named}." if named else TRUST[trust.level]


def believed(results: Sequence[ThreatResult]) -> tuple[str, ...]:
    """How far numbers may be believed: in one sentence, or in one for each threat where they differ."""
    told = [(threat_text(result.threat), trust_text(result.trust)) for result in results]
    alike = tuple(dict.fromkeys(said for _, said in told))
    return alike if len(alike) < 2 else tuple(f"{threat}: {said}" for threat, said in told)


def check_name(code: str) -> str:
    """A check's code as words: `gradient absent`."""
    return code.replace("_", " ")


STATES = {"passed": "no sign found", "flagged": "flagged", "left_out": "left out", "not_applicable": "not applicable"}
"""What each state of a check is called."""

CHECKED = (
    "A few rows, half of them among those that stood, were looked at again for signs that the number is too high. "
    "A check that found no sign proves nothing; a flag says what to do."
)
"""What the table of checks means."""


def check_state(check: Check) -> str:
    """A check as the table says it: `no sign found`, `flagged: suspect`, `left out`."""
    return f"flagged: {check.level}" if check.level else STATES[check.state]


def checks(report: Report) -> tuple[tuple[str, tuple[Check, ...]], ...]:
    """The checks under a title each: those that say the same under every threat, and what is left for each threat; none where none ran."""
    every = [result.trust.checks for result in report.threats]
    if not any(every):
        return ()
    if len(every) == 1:
        return ((threat_text(report.threats[0].threat), every[0]),)
    common = tuple(check for check in every[0] if all(check in other for other in every[1:]))
    own = [(threat_text(result.threat), tuple(c for c in result.trust.checks if c not in common)) for result in report.threats]
    return tuple((title, found) for title, found in (("under every threat", common), *own) if found)


def headline(result: ThreatResult, clean: Score) -> str:
    """One threat in a line: worst-case robust accuracy, clean accuracy, trust."""
    attacks = f"worst of {len(result.each)} attacks" if len(result.each) > 1 else "1 attack"
    return (
        f"robust accuracy {percent(result.worst)} under {threat_text(result.threat)} ({attacks}), "
        f"clean accuracy {percent(clean)}, trust: {result.trust.level}"
    )


def proved_text(result: ThreatResult, report: Report) -> str:
    """How many rows were proved robust, by what, and what that says of the truth; empty where the job did not ask for it."""
    if result.certified is not None:
        least = Score(count=result.certified, total=result.worst.total)
        told = f"Certified: {rate(least)} ({fraction(least)} rows), by {report.provenance.proof}. No attack broke {rate(result.worst)}."
        return f"{told} {SMOOTHED if smoothed(report) else BRACKET}"
    if result.proved is None:
        return ""
    return f"Proved robust by sound bounds, and not attacked: {number(result.proved)} of the {number(result.worst.count)} rows that stand."


BRACKET = "The robust accuracy lies between the two."
SMOOTHED = (
    "Both are of the smoothed model, whose robust accuracy lies between the two; neither says anything of the model as it was uploaded."
)


def smoothed(report: Report) -> bool:
    """Whether the figures are those of the smoothed model."""
    certificate = report.job.certificate if isinstance(report.job, Evaluate) else None
    return certificate is not None and certificate.kind == "smoothing"


def own_evidence(result: ThreatResult, warnings: Sequence[Finding]) -> tuple[Finding, ...]:
    """What speaks for or against the number of one threat and is not among the warnings of its report already."""
    return tuple(finding for finding in result.trust.evidence if finding not in warnings)


def suite_text(report: Report) -> str:
    """`suite quick@1`; empty where the job listed its attacks."""
    named = report.provenance.suite or (report.job.suite if isinstance(report.job, Evaluate) else "")
    return f"suite {named}" if named else ""


def _settings(attack: AttackBase, *, whole: bool = False) -> list[tuple[str, str]]:
    """Names and values of the settings that are not at their default; of all, if `whole`. An attack within has its own, after a dot."""
    found: list[tuple[str, str]] = []
    for name, field in type(attack).model_fields.items():
        given = getattr(attack, name)
        if name == "kind" or given in (None, ()) or (given == field.default and not whole):
            continue
        if isinstance(given, AttackBase):
            found.append((name, describe.kind(type(given))))
            found += [(f"{name}.{setting}", value) for setting, value in _settings(given, whole=whole)]
        else:
            found.append(
                (name, "+".join(given) if isinstance(given, tuple) else str(given).lower() if given in (True, False) else str(given))
            )
    return found


def settings_text(attack: AttackSpec, threat: Threat) -> str:
    """What is not at the contract's default, and the step size that follows: `steps 20, restarts 5, rest at default; step size 0.002`."""
    chosen = [f"{name} {value}" for name, value in _settings(attack)]
    said = ", ".join([*chosen, "rest at default"]) if chosen else "all at default"
    step = attack.step_size(threat.radius) if getattr(attack, "alpha", None) is None else None
    return said if step is None else f"{said}; step size {figure(step)}"


def attack_word(attack: AttackSpec, *, whole: bool = False) -> str:
    """An attack as `--attack` takes it: `pgd:steps=20,alpha=2/255`; with its defaults written out if `whole`."""
    chosen = [f"{name}={value}" for name, value in _settings(attack, whole=whole)]
    return f"{attack.kind}:{','.join(chosen)}" if chosen else attack.kind


def certificate_word(certificate: AnyCertificate) -> str:
    """How is certified, as `--method` takes it: `smoothing:sigma=0.5`."""
    chosen = [f"{name}={getattr(certificate, name)}" for name in certificate.model_fields_set - {"kind"}]
    return f"{certificate.kind}:{','.join(sorted(chosen))}" if chosen else certificate.kind


def attack_words(report: Report) -> tuple[tuple[str, str], ...]:
    """Name and every setting of each attack that was run."""
    ran = dict.fromkeys((each.name, attack_word(each.attack, whole=True)) for result in report.threats for each in result.each)
    return tuple(ran)


CASCADE = (
    "A cascade: each attack was tried only on the rows that those above it had left standing. The table shows the worst case "
    "up to each attack and the rows it gained; what an attack would have broken alone is not known."
)


def cascaded(report: Report) -> bool:
    """Whether attacks saw only what those before them had left."""
    return isinstance(report.job, Evaluate) and report.job.cascaded


def remarks(each: AttackResult) -> tuple[str, ...]:
    """What is to be said of an attack's result beside its counts."""
    found = []
    if each.carried:
        rows, were = ("1 row", "was") if each.carried == 1 else (f"{number(each.carried)} rows", "were")
        found.append(f"{rows} fell at a smaller eps and {were} not tried again")
    if each.entered and not each.queries and not each.attack.bounded:
        found.append("its one run serves every eps and is counted under the smallest")
    if each.median_queries is not None and each.p90_queries is not None:
        half, most = number(each.median_queries), number(each.p90_queries)
        found.append(f"half of the rows it broke took {half} queries at most, 90 % of them {most}")
    if each.smoothness is not None:
        found.append(f"mean KL divergence from the clean prediction {figure(each.smoothness)} nats")
    if each.universal is not None:
        found.append(universal_text(each.universal))
    return (*found, *map(surrogate_text, each.surrogates))


def universal_text(universal: UniversalResult) -> str:
    """`fitted on 1,437 rows, 41.2 % of which it fools, with 14,237 queries`."""
    fitted = f"fitted on {number(universal.rows)} rows, {percent(universal.fooled)} of which it fools"
    return f"{fitted}, with {number(universal.queries)} queries"


def surrogate_text(surrogate: SurrogateResult) -> str:
    """`surrogate mlp: accuracy 96.1 %, agrees with the target on 97.2 %, 1,437 rows`."""
    told = [f"accuracy {percent(surrogate.accuracy)}"] if surrogate.accuracy else []
    told += [f"agrees with the target on {rate(surrogate.agreement)}"]
    told += [f"{number(surrogate.rows)} rows{' to begin with' if surrogate.queries else ''}"] if surrogate.rows else []
    told += [f"{number(surrogate.queries)} queries for labels"] if surrogate.queries else []
    return f"surrogate {surrogate.name}: {', '.join(told)}"


LEVELS = {
    "white": "white box: the weights",
    "gray": "gray box: the training data",
    "black": "black box: answers alone",
}
"""What each attacker knows."""


def level_table(result: ThreatResult) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows of what attackers who know more and less have done; no rows where all know the same."""
    head = ("Attacker knows", "Robust accuracy", "Rows", "Broken by no other")
    rows = ((LEVELS[one.knowledge], percent(one.robust), fraction(one.robust), number(one.alone)) for one in result.levels)
    return head, tuple(rows) if len(result.levels) > 1 else ()


def evidence_text(value: JsonValue) -> str:
    """One piece of a finding's evidence on a line."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Curve(NamedTuple):
    """Accuracy against eps for one norm, from eps 0 (clean) up."""

    norm: Norm
    targeted: bool
    points: tuple[CurvePoint, ...]
    minimal: tuple[MinimalResult, ...] = ()
    """What attacks found that look for the smallest change."""

    @property
    def title(self) -> str:
        """`linf`, or `linf, targeted`."""
        return f"{self.norm}, targeted" if self.targeted else self.norm


def curves(report: Report) -> tuple[Curve, ...]:
    """The report's curve parted by norm and aim, each sorted by eps and beginning with the clean accuracy at eps 0."""
    found: dict[tuple[Norm, bool], dict[float, CurvePoint]] = {}
    for point in report.curve:
        start = CurvePoint(norm=point.norm, eps=0.0, robust=report.clean, targeted=point.targeted)
        found.setdefault((point.norm, point.targeted), {0.0: start})[point.eps] = point
    return tuple(
        Curve(
            norm,
            targeted,
            tuple(by_eps[eps] for eps in sorted(by_eps)),
            tuple(m for m in report.minimal if (m.norm, m.targeted) == (norm, targeted)),
        )
        for (norm, targeted), by_eps in found.items()
    )


class Asking(NamedTuple):
    """How attacks that ask and do not look inside fare with the queries they have, under one threat."""

    threat: Threat
    each: tuple[AttackResult, ...]


def asking(report: Report) -> tuple[Asking, ...]:
    """The threats under which such attacks were stopped at their first success and broke anything."""
    found = (
        Asking(r.threat, tuple(e for e in r.each if e.by_queries and "queries" in type(e.attack).model_fields)) for r in report.threats
    )
    return tuple(each for each in found if each.each)


ASKING = (
    "Queries: model evaluations of one row, the checks of its success included. Of the rows that an attack was tried on, so many "
    "had fallen when it had asked so often of each."
)
"""What the curves of queries mean."""


def eps_text(point: CurvePoint, results: Iterable[ThreatResult]) -> str:
    """A point's radius, with the ratio the user wrote for it if there is one: `8/255 = 0.03137`."""
    here = (r.threat for r in results if (r.threat.norm, r.threat.radius) == (point.norm, point.eps))
    written = next((str(threat.eps) for threat in here if isinstance(threat.eps, str)), "")
    return f"{written} = {figure(point.eps)}" if written else figure(point.eps)


MINIMAL = (
    "Found: rows, of those right at the start, for which a change was found at all, however large. "
    "Median distance: over the rows right at the start; a dash where fewer than half were broken."
)
"""What the table of smallest changes means."""


CORRUPTED = (
    "Each picture is disturbed as by sensors, lenses and files, at random and not by an attacker: types and severities after "
    "Hendrycks and Dietterich 2019 (arXiv 1903.12261), rotation and translation our own. All rows count, clean errors included."
)
"""What the table of corruptions means."""


def corruption_table(report: Report) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows of rates by type and severity, the mean over all of them last."""
    head = ("Corruption", *(f"Severity {severity}" for severity in range(1, SEVERITIES + 1)), "Mean")
    rows = [(one.name.replace("_", " "), *map(rate, one.severities), rate(one.mean)) for one in report.corruptions]
    return head, (*rows, ("mean of all", *("" for _ in range(SEVERITIES)), rate(report.corrupted)))


class ClassRow(NamedTuple):
    """One class under every threat; a score is missing where the class was not measured."""

    label: int
    clean: Score | None
    robust: tuple[Score | None, ...]


def class_rows(results: Sequence[ThreatResult]) -> tuple[ClassRow, ...]:
    """The per-class scores of all threats beside each other, by label."""
    by_threat = [{c.label: c for c in result.classes} for result in results]
    labels = sorted({label for classes in by_threat for label in classes})
    rows = []
    for label in labels:
        here = [classes.get(label) for classes in by_threat]
        clean = next((c.clean for c in here if c is not None), None)
        rows.append(ClassRow(label, clean, tuple(None if c is None else c.robust for c in here)))
    return tuple(rows)


def traffic(cost: Cost) -> str:
    """What an endpoint was asked, in words that others follow; empty for a file."""
    return "" if cost.asked is None or cost.sent is None else f"{number(cost.asked)} rows asked in {number(cost.sent)} requests, "

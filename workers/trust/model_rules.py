"""Rules on the model, which hold under every threat that is attacked alike: from measurements and warnings to checks. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from sparring.contract.attacks import APGD, AttackSpec
from sparring.contract.jobs import Evaluate
from sparring.contract.report import Check, Finding
from sparring.contract.threat import Threat
from sparring.workers.bench import Facts, feasible
from sparring.workers.trust import say
from sparring.workers.trust.say import Absent, Evidence, Level, held
from sparring.workers.trust.seen import OfModel, Scale, Slopes, Whole

_SATURATED = 0.1
"""Share of rows on which a softmax may saturate."""
_SPREAD, _DIGITS = 1e-3, 1e-5
"""Least spread of the scores, and least gap of the first two as a share of their size: float32 holds seven digits."""

Told = Mapping[str, Finding]


def of_model(
    job: Evaluate, threat: Threat, facts: Facts, warnings: Sequence[Finding], seen: OfModel, *, right: int, intact: bool
) -> Iterator[Check]:
    """Every check of the model itself, for the attacks of one threat.

    `right`: rows that were so; `intact`: after every shard it was what it was before.
    """
    told = {finding.code: finding for finding in warnings}
    attacks = feasible(job, threat, facts)
    absent = absence(attacks, facts, right)
    yield held("gradient_absent", absent, seen.slopes, lambda part: _gradient(part, told, attacks))
    yield held("saturated_scores", absent, seen.slopes, _saturated)
    yield held("tiny_scores", absent, seen.scale, _tiny)
    yield say.not_applicable("probabilities", absent.away) if absent.away else _told("probabilities", told)
    yield _random(told, attacks)
    yield _told("tied_scores", told)
    yield _told("chance_accuracy", told)
    if facts.access == "gradient":
        yield _modes(seen)
        yield _changed(seen, intact=intact)
    else:
        yield from (say.not_applicable(code, say.ANSWERS) for code in ("mode_mismatch", "model_changed"))
    yield _told("non_finite", told, "invalid")
    yield _told("refused_successes", told)
    if job.skip_proved:
        yield _told("proof_contradicted", told)
    if job.certificate and job.certificate.kind == "smoothing":
        yield _told("certificate_contradicted", told)
    yield held("unconstrained_failure", absent, seen.whole, _whole)
    yield _classes(attacks, facts.classes)


def absence(attacks: Sequence[AttackSpec], facts: Facts, right: int) -> Absent:
    """Why nothing may have been measured with gradients; `right` rows were so before any attack."""
    if not any(attack.access == "gradient" for attack in attacks):
        return Absent(say.NO_SLOPE)
    return Absent(why=say.NOTHING if not right else say.RANDOM if facts.draws else say.COSTLY)


def searches(attacks: Sequence[AttackSpec]) -> bool:
    """Whether an attack looks for success without the model's own gradient; noise only waits for it, and a replay knows it."""
    return any(attack.access != "gradient" and attack.kind not in ("noise", "replay") for attack in attacks)


def _told(code: str, told: Told, level: Level = "suspect") -> Check:
    """What the evaluation has warned of, or has not."""
    if code not in told:
        return say.passed(code)
    return say.flagged(code, level, told[code].message, told[code].evidence, told[code].hint)


def _gradient(part: Slopes, told: Told, attacks: Sequence[AttackSpec]) -> Check:
    code = "gradient_absent"
    evidence: Evidence = {"rows_without_gradient": part.flat, "rows_looked_at": part.rows}
    if not part.flat:
        return _told(code, told) if code in told else say.passed(code, evidence)
    alone = 2 * part.flat >= part.rows and not searches(attacks)
    message = f"On {part.flat} of {part.rows} rows the gradients of log-odds and DLR are exactly zero: gradient attacks cannot work there."
    if alone:
        message += " No attack that needs no gradient was run, so that nothing was measured."
    return say.flagged(code, "invalid" if alone else "suspect", message, evidence)


def _saturated(part: Slopes) -> Check:
    code = "saturated_scores"
    evidence: Evidence = {"rows_saturated": part.saturated, "rows_looked_at": part.rows}
    if part.saturated < max(3, _SATURATED * part.rows):
        return say.passed(code, evidence)
    message = (
        f"On {part.saturated} of {part.rows} rows the scores are so large that the gradient of the softmax cross-entropy is exactly zero."
    )
    return say.flagged(code, "suspect", message, evidence)


def _tiny(part: Scale) -> Check:
    code = "tiny_scores"
    evidence: Evidence = {"median_spread": part.spread, "median_gap_by_size": part.share, "rows_looked_at": part.rows}
    if part.spread >= _SPREAD and part.share >= _DIGITS:
        return say.passed(code, evidence)
    message = f"The scores of a row span {part.spread:.2g} (median), and its two highest differ by {part.share:.2g} of their size."
    return say.flagged(code, "suspect", message, evidence)


def _random(told: Told, attacks: Sequence[AttackSpec]) -> Check:
    averaged = max((getattr(attack, "samples", 1) for attack in attacks), default=1)
    if "not_deterministic" in told and averaged > 1:
        message = f"The model answers differently each time, and attacks averaged over {averaged} passes of it."
        return say.passed("not_deterministic", {"samples": averaged, **told["not_deterministic"].evidence}, message)
    return _told("not_deterministic", told)


def _modes(seen: OfModel) -> Check:
    if not seen.modes:
        return say.passed("mode_mismatch")
    message = f"{len(seen.modes)} parts of the model were in training mode, first {seen.modes[0]}."
    return say.flagged("mode_mismatch", "invalid", message, {"parts": [*seen.modes[:20]]})


def _changed(seen: OfModel, *, intact: bool) -> Check:
    if intact and not seen.changed:
        return say.passed("model_changed")
    return say.flagged("model_changed", "invalid", "Weights or buffers of the model changed while it was attacked.")


def _whole(part: Whole) -> Check:
    code = "unconstrained_failure"
    evidence: Evidence = {"rows_standing": part.standing, "rows_looked_at": part.rows, "eps": part.eps}
    if not part.standing:
        return say.passed(code, evidence)
    message = f"{part.standing} of {part.rows} rows withstood an ascent that could change every entry by {part.eps:g}, so go anywhere."
    return say.flagged(code, "suspect", message, evidence)


def _classes(attacks: Sequence[AttackSpec], classes: int) -> Check:
    dlr = [attack for attack in attacks if getattr(attack, "loss", "") == "dlr"]
    if not dlr:
        return say.not_applicable("few_classes", "No attack here climbs the DLR loss.")
    least = 4 if any(isinstance(attack, APGD) and attack.targets for attack in dlr) else 3
    if classes >= least:
        return say.passed("few_classes", {"classes": classes})
    message = f"The DLR loss needs {least} classes and there are {classes}: what is not defined of it is left away."
    return say.passed("few_classes", {"classes": classes}, message)

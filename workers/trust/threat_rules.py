"""Rules on what holds under one threat: from measurements and the rows' outcomes to checks. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparring.contract.attacks import PGD, AttackSpec
from sparring.contract.report import Check, Finding
from sparring.contract.threat import Threat
from sparring.workers.bench import Facts
from sparring.workers.trust import say
from sparring.workers.trust.model_rules import absence, searches
from sparring.workers.trust.say import Absent, Evidence, held
from sparring.workers.trust.seen import Asked, Course, Tenfold, Tremor, UnderThreat

_POINTS = 0.005
"""By how much of all rows a number may be wrong before it is told (AutoAttack and Carlini say 0.2 to 0.5 points)."""
_CHANGE = 0.5
"""Mean relative change of the margin at half the radius."""
_SINGLE, _MANY = ("fgsm", "fgm"), ("pgd", "apgd", "bim", "mifgsm")
_UNITLESS = ("margin", "dlr", "scaled")
_ENOUGH = 20
"""Steps of an attack of another loss, to stand in for one whose loss has a unit."""


class Outcome(NamedTuple):
    """What the evaluation made of every row under the threat."""

    threat: Threat
    attacks: tuple[AttackSpec, ...]
    right: int
    """Rows right before any attack."""
    wins: NDArray[np.bool_]
    """(rows, attacks)."""
    robust: float
    """Share of the rows that stood."""
    masked: tuple[Finding, ...]
    """Of levels.masked."""
    cascaded: bool


def under_threat(facts: Facts, outcome: Outcome, seen: UnderThreat) -> Iterator[Check]:
    """Every check under one threat."""
    absent = _absence(outcome, facts)
    yield _masked(outcome, seen.asked, absent)
    yield held("single_step_wins", absent, seen.course, lambda part: _single(part, outcome))
    yield _converged(seen, outcome, absent)
    yield held("silent_success", absent, seen.course, _silent)
    yield held("outside_ball", absent, seen.course, _outside)
    yield held("search_disagrees", absent, seen.course, _disputed)
    yield held("unstable_loss", absent, seen.tremor, _unstable)
    yield held("scale_matters", absent, seen.tenfold, lambda part: _scale(part, outcome.attacks))


def _absence(outcome: Outcome, facts: Facts) -> Absent:
    absent = absence(outcome.attacks, facts, outcome.right)
    if not absent.away and outcome.threat.norm not in PGD.norms:
        return Absent(why=say.NO_ASCENT)
    return absent if outcome.threat.radius else Absent(say.FLAT)


def _matters(fell: int, rows: int, outcome: Outcome) -> bool:
    """Two rows of the sample at least, and so many that accuracy over all rows would fall by more than half a point."""
    return fell >= 2 and fell / rows * outcome.robust > _POINTS


def _masked(outcome: Outcome, asked: Asked | None, absent: Absent) -> Check:
    code = "weaker_attacker_wins"
    if absent.away:
        return say.not_applicable(code, absent.away)
    if outcome.masked:
        found = outcome.masked[0]
        return say.flagged(code, "suspect", found.message, found.evidence, found.hint)
    if asked is not None:
        evidence: Evidence = {"rows_looked_at": asked.rows, "rows_broken": asked.fell, "queries": asked.queries}
        if not asked.rows or not _matters(asked.fell, asked.rows, outcome):
            return say.passed(code, evidence)
        message = f"{asked.fell} of {asked.rows} rows that stood fell to {asked.queries} queries of a search that uses no gradient."
        return say.flagged(code, "suspect", message, evidence)
    if searches(outcome.attacks):
        return say.passed(code)
    return say.left_out(code, f"No attack without gradients was run, and {absent.why[0].lower()}{absent.why[1:]}")


def _single(part: Course, outcome: Outcome) -> Check:
    code = "single_step_wins"
    evidence: Evidence = {"attack": part.attack, "rows_looked_at": part.rows, "single_step": part.single, "attack_broke": part.several}
    evidence |= {"single_step_alone": part.single_alone}
    if part.single - part.several >= 2 or part.single_alone >= max(3, 0.05 * part.rows):
        message = (
            f"Of {part.rows} rows a single step broke {part.single}, and {part.attack} of {part.steps} steps {part.several}; "
            f"{part.single_alone} fell to the single step alone."
        )
        return say.flagged(code, "suspect", message, evidence)
    single, many = (_broken(outcome, kinds) for kinds in (_SINGLE, _MANY))
    if outcome.cascaded or single is None or many is None:
        return say.passed(code, evidence)
    more, alone, least = int(single.sum() - many.sum()), int((single & ~many).sum()), max(3, _POINTS * len(single))
    evidence |= {"all_rows_single_step_alone": alone, "all_rows": len(single)}
    if more < least and alone < max(least, 0.02 * len(single)):
        return say.passed(code, evidence)
    both = f"A single step broke {int(single.sum())} rows, attacks of many steps {int(many.sum())}"
    message = f"{both}; {alone} rows fell to the single step alone."
    return say.flagged(code, "suspect", message, evidence)


def _broken(outcome: Outcome, kinds: Sequence[str]) -> NDArray[np.bool_] | None:
    """(rows,): broken by an attack of these kinds; None where there is none."""
    columns = [at for at, attack in enumerate(outcome.attacks) if attack.kind in kinds]
    return np.logical_or.reduce(outcome.wins[:, columns], axis=1) if columns else None


def _converged(seen: UnderThreat, outcome: Outcome, absent: Absent) -> Check:
    code, course, longer = "not_converged", seen.course, seen.longer
    if absent.away == say.NO_SLOPE:
        return say.left_out(code, say.MORE)
    if absent.away or course is None:
        return held(code, absent, course, lambda part: say.passed(code))
    evidence: Evidence = {"rows_standing": course.standing, "loss_still_rising": course.rising, "last_steps": course.last}
    if longer is not None:
        evidence |= {"rows_tried_again": longer.rows, "rows_that_fell": longer.fell}
        if longer.rows and _matters(longer.fell, longer.rows, outcome):
            points = 100 * longer.fell / longer.rows * outcome.robust
            message = (
                f"{longer.fell} of {longer.rows} rows that stood fell to {longer.attack} with twice its steps from another start: "
                f"over all rows that is about {points:.1f} points."
            )
            return say.flagged(code, "suspect", message, evidence)
        return say.passed(code, evidence)
    if 2 * course.rising > max(5, course.standing):
        message = f"On {course.rising} of {course.standing} rows that stand the last {course.last} steps still made over 5 % of the rise."
        return say.flagged(code, "suspect", message, evidence)
    return say.left_out(code, absent.why)


def _silent(part: Course) -> Check:
    code = "silent_success"
    evidence: Evidence = {"rows_looked_at": part.rows, "rows": part.silent}
    if not part.silent:
        return say.passed(code, evidence)
    message = f"On {part.silent} of {part.rows} rows the model was fooled at a point on the way, and the attack ended as a failure."
    return say.flagged(code, "invalid", message, evidence)


def _outside(part: Course) -> Check:
    code = "outside_ball"
    evidence: Evidence = {"rows_looked_at": part.rows, "rows_outside": part.outside, "rows_without_number": part.faulty}
    if not part.outside and not part.faulty:
        return say.passed(code, evidence)
    message = f"Of {part.rows} rows {part.outside} ended outside ball or bounds, and on {part.faulty} the model answered NaN or infinity."
    return say.flagged(code, "invalid", message, evidence)


def _disputed(part: Course) -> Check:
    code = "search_disagrees"
    evidence: Evidence = {"rows_looked_at": part.rows, "rows": part.disputed}
    if part.disputed < max(3, 0.05 * part.rows):
        return say.passed(code, evidence)
    message = f"On {part.disputed} of {part.rows} rows the copy that is searched says another class than the judge where the attack ended."
    return say.flagged(code, "suspect", message, evidence)


def _unstable(part: Tremor) -> Check:
    code = "unstable_loss"
    evidence: Evidence = {"rows_looked_at": part.rows, "points": part.directions, "mean_relative_change": part.change}
    if part.change <= _CHANGE:
        return say.passed(code, evidence)
    message = f"At random points of half the radius the margin differs by {100 * part.change:.0f} % of its size on average."
    return say.flagged(code, "suspect", message, evidence)


def _scale(part: Tenfold, attacks: Sequence[AttackSpec]) -> Check:
    code = "scale_matters"
    evidence: Evidence = {"rows_looked_at": part.rows, "broken": part.plain, "broken_at_ten_times_the_scores": part.tenfold}
    unitless = any(getattr(a, "loss", "") in _UNITLESS and getattr(a, "steps", 0) >= _ENOUGH for a in attacks)
    if unitless or abs(part.plain - part.tenfold) < max(2, 0.01 * part.rows):
        return say.passed(code, evidence)
    message = (
        f"Of {part.rows} rows an ascent of the log-odds breaks {part.plain}, and {part.tenfold} where the same scores are ten times "
        "as large: the number depends on their unit."
    )
    return say.flagged(code, "suspect", message, evidence)

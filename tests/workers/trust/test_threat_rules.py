"""Measurements under a threat become checks: at which numbers, and at what level."""

from typing import Any

import numpy as np
import pytest
from workers.trust.known import facts

from sparring.contract.attacks import APGD, FGSM, FMN, PGD, AttackSpec, RayS, Square
from sparring.contract.report import Check, Finding
from sparring.contract.threat import Threat
from sparring.workers.trust.seen import Asked, Course, Longer, Tenfold, Tremor, UnderThreat
from sparring.workers.trust.threat_rules import Outcome, under_threat

COURSE = Course(
    attack="pgd", rows=64, steps=40, last=10, standing=32, rising=0, silent=0, outside=0, faulty=0, disputed=0,
    single=30, several=32, single_alone=1,
)  # fmt: skip
GOOD = UnderThreat(
    course=COURSE,
    longer=Longer(attack="pgd", rows=32, fell=1),
    tenfold=Tenfold(rows=64, plain=30, tenfold=31),
    tremor=Tremor(rows=64, directions=640, change=0.1),
)
LISTED: tuple[AttackSpec, ...] = (PGD(), Square())


def checks(seen: UnderThreat = GOOD, attacks: tuple[AttackSpec, ...] = LISTED, **changes: Any) -> dict[str, Check]:
    wins = np.zeros((1000, len(attacks)), dtype=np.bool_)
    outcome = Outcome(Threat(norm="linf", eps=0.1), attacks, 900, wins, robust=0.5, masked=(), cascaded=False)._replace(**changes)
    return {check.code: check for check in under_threat(facts(), outcome, seen)}


def course(**changes: int) -> UnderThreat:
    return GOOD.model_copy(update={"course": COURSE.model_copy(update=changes)})


def part(**changes: Any) -> UnderThreat:
    return GOOD.model_copy(update=changes)


def test_a_sound_number_passes_every_check() -> None:
    assert {check.state for check in checks().values()} == {"passed"}


@pytest.mark.parametrize(
    ("seen", "code", "expected"),
    [
        (course(silent=1), "silent_success", "invalid"),
        (course(outside=1), "outside_ball", "invalid"),
        (course(faulty=1), "outside_ball", "invalid"),
        (course(disputed=3), "search_disagrees", None),
        (course(disputed=4), "search_disagrees", "suspect"),
        (course(single=34, several=32), "single_step_wins", "suspect"),
        (course(single=33, several=32), "single_step_wins", None),
        (course(single_alone=4), "single_step_wins", "suspect"),
        (part(tremor=Tremor(rows=64, directions=640, change=0.51)), "unstable_loss", "suspect"),
        (part(tenfold=Tenfold(rows=64, plain=30, tenfold=32)), "scale_matters", "suspect"),
        (part(tenfold=Tenfold(rows=64, plain=32, tenfold=30)), "scale_matters", "suspect"),
        (part(longer=Longer(attack="pgd", rows=32, fell=2)), "not_converged", "suspect"),
        (part(longer=Longer(attack="pgd", rows=0, fell=0)), "not_converged", None),
        (part(longer=None, course=COURSE.model_copy(update={"rising": 17})), "not_converged", "suspect"),
    ],
)
def test_what_each_measurement_comes_to(seen: UnderThreat, code: str, expected: str | None) -> None:
    found = checks(seen)
    assert found[code].level == expected
    assert {each.code for each in found.values() if each.level} == ({code} if expected else set())


def test_rows_that_fall_to_more_steps_matter_only_where_they_change_the_number() -> None:
    """2 of 32 rows that stood: 0.3 points where 5 % of all rows stood, 3 points where half of them did."""
    seen = part(longer=Longer(attack="pgd", rows=32, fell=2))
    assert checks(seen, robust=0.05)["not_converged"].state == "passed"
    assert checks(seen, robust=0.5)["not_converged"].level == "suspect"


def test_a_loss_without_a_unit_makes_the_unit_of_the_scores_harmless() -> None:
    seen = part(tenfold=Tenfold(rows=64, plain=20, tenfold=30))
    assert checks(seen, (PGD(), APGD(loss="dlr")))["scale_matters"].state == "passed"
    assert checks(seen, (PGD(), PGD(steps=5, loss="margin")))["scale_matters"].level == "suspect"


def test_single_steps_of_the_evaluation_itself_count_row_by_row() -> None:
    attacks: tuple[AttackSpec, ...] = (FGSM(), PGD(), Square())

    def found(single: int, alone: int, both: int, **changes: Any) -> Check:
        wins = np.zeros((1000, 3), dtype=np.bool_)
        wins[:both, :2] = True
        wins[both : both + alone, 0] = True
        wins[500 : 500 + single, 1] = True
        return checks(attacks=attacks, wins=wins, **changes)["single_step_wins"]

    assert found(single=100, alone=19, both=50).state == "passed", "the attack of many steps is the stronger one"
    assert found(single=100, alone=20, both=50).level == "suspect", "two rows in a hundred are no chance"
    assert found(single=0, alone=4, both=50).state == "passed"
    assert found(single=0, alone=5, both=50).level == "suspect", "the order is the wrong way round"
    assert found(single=0, alone=50, both=0, cascaded=True).state == "passed", "what came later saw only the rest"


def test_masking_is_told_by_the_attacks_of_the_job_or_by_a_search_of_the_checks() -> None:
    code = "weaker_attacker_wins"
    assert checks()[code].state == "passed"
    masked = Finding(code=code, message="Rows fell to black-box attacks.", evidence={"rows": 9})
    flag = checks(masked=(masked,))[code]
    assert (flag.level, flag.message, flag.evidence) == ("suspect", masked.message, masked.evidence)
    alone: tuple[AttackSpec, ...] = (PGD(),)
    assert checks(attacks=alone)[code].state == "left_out"
    assert checks(part(asked=Asked(rows=32, queries=300, fell=1)), alone)[code].state == "passed"
    assert checks(part(asked=Asked(rows=32, queries=300, fell=2)), alone)[code].level == "suspect"


def test_where_no_attack_climbs_there_is_nothing_to_mislead() -> None:
    found = checks(UnderThreat(), (Square(),))
    converged = found.pop("not_converged")
    assert (converged.state, "more queries" in converged.message) == ("left_out", True)
    assert {check.state for check in found.values()} == {"not_applicable"}


def test_at_eps_0_and_in_a_norm_without_an_ascent() -> None:
    assert {check.state for check in checks(UnderThreat(), threat=Threat(norm="linf", eps=0)).values()} == {"not_applicable"}
    sparse = checks(UnderThreat(), (FMN(), RayS()), threat=Threat(norm="l0", eps=3))
    assert sparse["silent_success"].state == "left_out"
    assert "not defined in this norm" in sparse["silent_success"].message


def test_what_a_cheap_run_leaves_out_is_named() -> None:
    found = checks(part(longer=None, tenfold=None))
    assert {code for code, check in found.items() if check.state == "left_out"} == {"not_converged", "scale_matters"}

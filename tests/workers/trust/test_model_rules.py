"""Measurements of the model become checks: at which numbers, and at what level."""

import pytest
from workers.trust.known import facts

from sparring.contract.jobs import Evaluate
from sparring.contract.report import Check, Finding, Trust
from sparring.workers.trust.level import level
from sparring.workers.trust.model_rules import of_model
from sparring.workers.trust.seen import OfModel, Scale, Slopes, Whole

GOOD = OfModel(
    slopes=Slopes(rows=64, flat=0, saturated=0), scale=Scale(rows=64, spread=9.0, share=0.4), whole=Whole(rows=64, standing=0, eps=1.0)
)
PGD, SQUARE, NOISE = {"kind": "pgd"}, {"kind": "square"}, {"kind": "noise"}


def checks(seen: OfModel = GOOD, *attacks, warnings=(), known=None, right=90, intact=True, **job) -> dict[str, Check]:
    asked = Evaluate(model="a" * 64, data="b" * 64, threats=[{"norm": "linf", "eps": 0.1}], attacks=list(attacks) or [PGD, SQUARE], **job)
    return of_threat(0, asked, known or facts(), seen, warnings, right=right, intact=intact)


def of_threat(at: int, asked: Evaluate, known=None, seen: OfModel = GOOD, warnings=(), right=90, intact=True) -> dict[str, Check]:
    return {check.code: check for check in of_model(asked, asked.threats[at], known or facts(), warnings, seen, right=right, intact=intact)}


def test_a_sound_model_passes_every_check_and_nothing_is_called_robust() -> None:
    found = checks(GOOD, {"kind": "apgd", "loss": "dlr"}, skip_proved=True)
    assert {check.state for check in found.values()} == {"passed"}
    assert level(tuple(found.values()), ()) == Trust(level="reliable", checks=tuple(found.values()))
    assert not any("is robust" in check.message for check in found.values())


def test_what_another_threat_is_attacked_with_measures_nothing_under_this_one() -> None:
    threats = [{"norm": "linf", "eps": 0.1}, {"norm": "l0", "eps": 3}]
    asked = Evaluate(model="a" * 64, data="b" * 64, threats=threats, suite="thorough")
    flat = GOOD.model_copy(update={"slopes": Slopes(rows=64, flat=64, saturated=0)})
    assert [of_threat(at, asked, seen=flat)["gradient_absent"].level for at in (0, 1)] == ["suspect", "invalid"]


@pytest.mark.parametrize(
    ("flat", "attacks", "expected"),
    [
        (0, [PGD], None),
        (1, [PGD, SQUARE], "suspect"),
        (64, [PGD, SQUARE], "suspect"),
        (31, [PGD], "suspect"),
        (32, [PGD], "invalid"),
        (64, [PGD, NOISE], "invalid"),  # noise looks for nothing
        (64, [PGD, {"kind": "hopskipjump"}], "suspect"),
    ],
)
def test_without_a_gradient_and_without_attacks_that_need_none_nothing_was_measured(flat, attacks, expected) -> None:
    seen = GOOD.model_copy(update={"slopes": Slopes(rows=64, flat=flat, saturated=0)})
    assert checks(seen, *attacks)["gradient_absent"].level == expected
    assert checks(seen, *attacks, replay=["job_" + "a" * 20])["gradient_absent"].level == expected, "a replay looks for nothing either"


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        ({"slopes": Slopes(rows=64, flat=0, saturated=6)}, "saturated_scores", None),
        ({"slopes": Slopes(rows=64, flat=0, saturated=7)}, "saturated_scores", "suspect"),
        ({"scale": Scale(rows=64, spread=1e-4, share=0.3)}, "tiny_scores", "suspect"),
        ({"scale": Scale(rows=64, spread=5.0, share=1e-6)}, "tiny_scores", "suspect"),
        ({"whole": Whole(rows=64, standing=1, eps=1.0)}, "unconstrained_failure", "suspect"),
        ({"modes": ("dropout",)}, "mode_mismatch", "invalid"),
        ({"changed": True}, "model_changed", "invalid"),
    ],
)
def test_what_each_measurement_comes_to(changes, code, expected) -> None:
    found = checks(GOOD.model_copy(update=changes))
    assert found[code].level == expected
    assert {each.code for each in found.values() if each.level} == ({code} if expected else set())
    assert level(tuple(found.values()), ()).level == (expected or "reliable")


def test_a_model_that_changed_in_some_shard_is_not_believed() -> None:
    assert checks(intact=False)["model_changed"].level == "invalid"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("probabilities", "suspect"),
        ("not_deterministic", "suspect"),
        ("tied_scores", "suspect"),
        ("chance_accuracy", "suspect"),
        ("refused_successes", "suspect"),
        ("gradient_absent", "suspect"),
        ("non_finite", "invalid"),
    ],
)
def test_a_warning_is_a_flag_and_is_told_in_its_own_words(code, expected) -> None:
    warning = Finding(code=code, message="Seen.", hint="Do.", evidence={"rows": 3})
    found = checks(GOOD, warnings=(warning,))
    assert found[code].level == expected
    believed = level(tuple(found.values()), (warning,))
    assert (believed.level, believed.evidence) == (expected, (warning,))


def test_a_random_model_that_attacks_average_over_is_not_suspect_but_not_fully_checked_either() -> None:
    warning = Finding(code="not_deterministic", message="It varies.")
    known = facts(draws=True)
    assert checks(OfModel(), PGD, warnings=(warning,), known=known)["not_deterministic"].level == "suspect"
    found = checks(OfModel(), {"kind": "pgd", "samples": 20}, warnings=(warning,), known=known)
    assert found["not_deterministic"].state == "passed"
    assert "at random" in found["unconstrained_failure"].message
    assert level(tuple(found.values()), (warning,)).level == "unchecked"


def test_checks_that_need_a_gradient_do_not_apply_where_no_attack_has_one() -> None:
    known, warning = facts(access="score"), Finding(code="probabilities", message="A forest answers probabilities.")
    found = checks(OfModel(), SQUARE, warnings=(warning,), known=known)
    assert {code for code, check in found.items() if check.state == "not_applicable"} == {
        "gradient_absent", "saturated_scores", "tiny_scores", "probabilities", "unconstrained_failure", "few_classes",
        "mode_mismatch", "model_changed",
    }  # fmt: skip


def test_what_was_not_measured_is_listed() -> None:
    found = checks(GOOD.model_copy(update={"whole": None}))
    believed = level(tuple(found.values()), ())
    assert (believed.level, believed.left_out) == ("unchecked", ("unconstrained_failure",))


def test_where_no_row_was_right_there_is_nothing_to_look_at() -> None:
    found = checks(OfModel(), right=0)["gradient_absent"]
    assert (found.state, found.message) == ("left_out", "No row was right before any attack.")


def test_few_classes_are_told_and_no_sign() -> None:
    aimed = {"kind": "apgd", "loss": "dlr", "targets": 9}
    found = checks(GOOD, aimed, known=facts(classes=3))["few_classes"]
    assert (found.state, found.evidence) == ("passed", {"classes": 3})
    assert "needs 4 classes and there are 3" in found.message
    assert checks(GOOD, PGD)["few_classes"].state == "not_applicable"

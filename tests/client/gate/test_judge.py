from datetime import date

import pytest

from sparring.contract.report import Check, Trust
from sparring.contract.verdict import Baselines, RuleResult, exit_code
from sparring.gate.baselines import accepted
from sparring.gate.judge import judge, unjudged
from tests.client.gate import sample
from tests.reports import factory

TODAY = date(2026, 5, 1)
WAIVER = "waivers:\n  - {{id: w, scope: [a], reason: known, approved_by: b.person, expires: {expires}{more}}}\n"


def judged(tmp_path, rule: str, found=None, baselines=None, *, more: str = "", only=()) -> RuleResult:
    read = sample.policy(tmp_path, f"id: a, {rule}", more=more)
    return judge(read, found or sample.evidence(), baselines or Baselines(), "net", TODAY, only)[0]


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        # 190 of 200: [91.0, 97.3]
        ("metric: clean, min: 0.9", "pass"),
        ("metric: clean, min: 0.95", "inconclusive"),
        ("metric: clean, min: 0.98", "violated"),
        # 150 of 200: [68.6, 80.5]
        ("metric: robust, threat: near, min: 0.68", "pass"),
        ("metric: robust, threat: near, min: 0.75", "inconclusive"),
        ("metric: robust, threat: near, min: 0.81", "violated"),
        ("metric: robust, threat: near, min: 0.68, min_samples: 201", "inconclusive"),
        ("metric: robust, threat: near, min: 0.75, on_inconclusive: violated", "violated"),
        ("metric: robust, threat: near, min: 0.75, on_inconclusive: pass", "pass"),
        ("metric: robust, threat: near, min: 0.81, on_inconclusive: pass", "violated"),
        # 15 of 20 in each of ten classes, at 99.5 % each
        ("metric: worst_class, threat: near, min: 0.4", "pass"),
        ("metric: worst_class, threat: near, min: 0.55", "inconclusive"),
        ("metric: worst_class, threat: near, min: 0.93", "violated"),
        ("metric: worst_class, threat: near, min: 0.4, min_samples: 21", "inconclusive"),
        # 100 of 200: [43.1, 56.9]
        ("metric: certified, threat: near, min: 0.43", "pass"),
        ("metric: certified, threat: near, min: 0.57", "violated"),
        # of 190 right rows 40 fall, so that the median row stands
        ("metric: queries, threat: near, min: 1000", "pass"),
        ("metric: trust, threat: near, min: unchecked", "pass"),
        ("metric: trust, threat: near, min: reliable", "violated"),
        ("metric: time, max: 84", "pass"),
        ("metric: time, max: 83", "violated"),
    ],
)
def test_a_rule_is_held_against_the_interval(tmp_path, rule: str, status: str):
    result = judged(tmp_path, rule)
    assert result.status == status
    assert result.why
    assert result.asked
    assert result.line == 8


def test_the_interval_is_that_of_the_report(tmp_path):
    result = judged(tmp_path, "metric: robust, threat: near, min: 0.5")
    score = sample.report().threats[0].worst
    assert (result.value, result.low, result.high) == (score.rate, *score.interval)
    assert (result.samples, result.limit) == (200, 0.5)


def test_queries_of_rows_that_fall(tmp_path):
    found = sample.evidence(stood=20)  # rows 20..189 fall after 70..239 queries
    result = judged(tmp_path, "metric: queries, threat: near, min: 100", found)
    assert result.status == "pass"
    assert 100 <= result.low < result.value < result.high < 240
    assert judged(tmp_path, "metric: queries, threat: near, min: 180", found).status == "violated"
    assert judged(tmp_path, f"metric: queries, threat: near, min: {int(result.value)}", found).status == "inconclusive"


def test_clean_accuracy_of_data_without_labels_is_not_decided(tmp_path):
    assert judged(tmp_path, "metric: clean, min: 0.5", sample.evidence(labelled=False)).status == "inconclusive"


def test_a_certified_rate_that_nobody_proved_is_none(tmp_path):
    assert judged(tmp_path, "metric: certified, threat: near, min: 0.1", sample.evidence(proved=None)).status == "violated"


def test_a_suspect_number_is_told_with_its_evidence(tmp_path):
    found = sample.evidence(level="suspect")
    assert judged(tmp_path, "metric: trust, threat: near, min: suspect", found).status == "pass"
    assert judged(tmp_path, "metric: trust, threat: near, min: unchecked", found).status == "violated"


@pytest.mark.parametrize(
    "rule",
    [
        "metric: robust, threat: near, min: 0.1",
        "metric: robust, threat: near, min: 0.75, on_inconclusive: pass",
        "metric: worst_class, threat: near, min: 0.1",
        "metric: certified, threat: near, min: 0.1",
        "metric: queries, threat: near, min: 1",
        "metric: trust, threat: near, min: suspect",
    ],
)
def test_an_invalid_number_passes_no_rule_and_no_waiver_forgives_it(tmp_path, rule: str):
    found = sample.evidence(level="invalid")
    waiver = WAIVER.format(expires="2027-01-01", more="")
    result = judged(tmp_path, rule, found, more=waiver)
    assert (result.status, result.waiver) == ("violated", None)
    assert result.why.startswith("the number is invalid: ")
    assert result.notes == ("waiver w is not applied: an invalid number cannot be forgiven",)
    assert exit_code((result,)) == 1
    assert judged(tmp_path, "metric: clean, min: 0.9", found).status == "pass", "which no attack has measured"


def test_what_was_left_out_is_told_by_name(tmp_path):
    found = sample.evidence()
    check = Check(code="not_converged", state="left_out", message="It would have cost too much.")
    (result,) = found.report.threats
    threats = (result.model_copy(update={"trust": Trust(checks=(check,))}),)
    found = found._replace(report=found.report.model_copy(update={"threats": threats}))
    told = judged(tmp_path, "metric: trust, threat: near, min: reliable", found)
    assert (told.status, told.found) == ("violated", "unchecked")
    assert "Left out: not converged." in told.why


def kept(tmp_path, **given) -> Baselines:
    read = sample.policy(tmp_path, "id: a, metric: time, max: 1")
    return Baselines().replaced(accepted(read.policy, sample.evidence(**given), "net", None, factory.WHEN))


DROP = "metric: robust, threat: near, max_drop: 0.05"


def test_without_a_baseline_a_drop_is_inconclusive_and_says_how_to_make_one(tmp_path):
    result = judged(tmp_path, DROP)
    assert result.status == "inconclusive"
    assert "sparring gate baseline accept" in result.why


@pytest.mark.parametrize(
    ("before", "now", "status"), [(150, 150, "pass"), (150, 160, "pass"), (150, 144, "inconclusive"), (150, 125, "violated")]
)
def test_a_drop_is_held_against_the_paired_interval(tmp_path, before: int, now: int, status: str):
    result = judged(tmp_path, DROP, sample.evidence(stood=now, sha="cd" * 32), kept(tmp_path, stood=before))
    assert result.status == status
    assert result.flips.lost == max(0, before - now)
    assert result.value == (before - now) / 200


def test_the_clean_accuracy_has_a_baseline_of_its_own(tmp_path):
    result = judged(tmp_path, "metric: clean, max_drop: 0.02", sample.evidence(right=170, sha="cd" * 32), kept(tmp_path))
    assert (result.status, result.flips.lost) == ("violated", 20)


def test_the_model_of_the_baseline_has_not_dropped_however_small_the_limit(tmp_path):
    assert judged(tmp_path, "metric: robust, threat: near, max_drop: 0", None, kept(tmp_path)).status == "pass"
    fresh = sample.evidence(sha="cd" * 32)
    assert judged(tmp_path, "metric: robust, threat: near, max_drop: 0", fresh, kept(tmp_path)).status == "inconclusive"


def test_a_baseline_of_other_rows_is_not_compared_with(tmp_path):
    baselines = kept(tmp_path)
    short = Baselines(entries=tuple(each.model_copy(update={"rows": 100, "right": each.right[:25]}) for each in baselines.entries))
    assert "accept a new one" in judged(tmp_path, DROP, None, short).why


@pytest.mark.parametrize(
    ("expires", "more", "waived", "note"),
    [
        ("2026-05-01", "", True, ""),
        ("2026-04-30", "", False, "it expired on 2026-04-30"),
        ("2030-01-01", ", floor: 0.68", True, ""),
        ("2030-01-01", ", floor: 0.7", False, "below its floor of 70 %"),
    ],
)
def test_a_waiver_forgives_until_it_expires_and_down_to_its_floor(tmp_path, expires: str, more: str, waived: bool, note: str):
    result = judged(tmp_path, "metric: robust, threat: near, min: 0.9", more=WAIVER.format(expires=expires, more=more))
    assert result.status == "violated"
    assert (result.waiver is not None) is waived
    assert exit_code([result]) == (0 if waived else 1)
    assert note in "".join(result.notes)


def test_a_waiver_that_is_not_needed_is_told(tmp_path):
    result = judged(tmp_path, "metric: robust, threat: near, min: 0.5", more=WAIVER.format(expires="2030-01-01", more=""))
    assert result.waiver is None
    assert "the rule holds without it" in result.notes[0]


def test_only_the_rules_asked_for_are_applied_and_the_others_say_why(tmp_path):
    read = sample.policy(tmp_path, "id: a, metric: clean, min: 0.99", "id: b, metric: clean, min: 0.5")
    first, second = judge(read, sample.evidence(), Baselines(), "net", TODAY, {"b"})
    assert (first.status, second.status) == ("not_applied", "pass")
    assert "--rule" in first.why


def test_nothing_is_judged_where_nothing_was_evaluated(tmp_path):
    read = sample.policy(tmp_path, "id: a, metric: clean, min: 0", more=WAIVER.format(expires="2030-01-01", more=""))
    (result,) = unjudged(read, "the evaluation failed", TODAY)
    assert (result.status, result.why, result.waiver, result.notes) == ("not_applied", "the evaluation failed", None, ())


def test_unchanged_inputs_give_the_same_results(tmp_path):
    read = sample.policy(tmp_path, "id: a, metric: clean, min: 0.9", "id: b, metric: worst_class, threat: near, min: 0.2", f"id: c, {DROP}")
    once, again = (judge(read, sample.evidence(), kept(tmp_path), "net", TODAY) for _ in range(2))
    assert once == again

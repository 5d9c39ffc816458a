import math

import pytest
from pydantic import ValidationError

from sparring.contract.attacks import names
from sparring.contract.report import Report, Score
from tests.reports import factory


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (50, 100, 0.4038, 0.5962),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 10, 0.0179, 0.4042),
        (0, 1, 0.0, 0.7935),
        (431, 1000, 0.4006, 0.4619),
    ],
)
def test_wilson_s_interval_against_known_values(count, total, low, high):
    assert Score(count=count, total=total).interval == pytest.approx((low, high), abs=5e-5)


def test_the_interval_solves_wilson_s_equation():
    """Its ends are the rates from which what was seen lies 1.96 standard errors away."""
    for count, total in ((1, 3), (7, 20), (999, 1000)):
        score = Score(count=count, total=total)
        for end in score.interval:
            assert abs(score.rate - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / total))


def test_the_interval_holds_the_rate_and_stays_in_zero_to_one():
    for total in (1, 2, 9, 1000, 10**9):
        for count in {0, 1, total // 2, total - 1, total}:
            score = Score(count=count, total=total)
            low, high = score.interval
            assert 0 <= low <= score.rate <= high <= 1


def test_a_score_of_nothing():
    nothing = Score(count=0, total=0)
    assert math.isnan(nothing.rate)
    assert nothing.interval == (0.0, 1.0)


def test_a_score_counts():
    assert Score(count=1, total=4).rate == 0.25
    with pytest.raises(ValidationError, match="count 5 exceeds total 4"):
        Score(count=5, total=4)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Score(count=-1, total=4)


def test_a_report_survives_the_wire():
    report = factory.report(warnings=(factory.warning(),))
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_report_holds_counts_and_no_rates():
    written = factory.report().model_dump(mode="json")
    assert written["clean"] == {"count": factory.CLEAN, "total": factory.ROWS}
    assert [each["name"] for each in written["threats"][0]["each"]] == list(names(factory.ATTACKS))


def test_a_report_knows_no_nan():
    written = factory.report().model_dump()
    written["threats"][0]["median_distance"] = math.nan
    with pytest.raises(ValidationError, match="finite number"):
        Report.model_validate(written)


def test_mean_corruption_accuracy_is_the_mean_of_all_rates():
    told = factory.corrupted("shot_noise", "contrast")
    assert (told.corrupted.count, told.corrupted.total) == (7000, 10_000)
    assert Report.model_validate_json(told.model_dump_json()) == told
    assert math.isnan(factory.report().corrupted.rate)

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparring.contract.report import Score
from sparring.reports.compare import Incomparable, Told, compared, enough, flips, mcnemar, median
from tests.client.gate import sample

STEADY = settings(max_examples=60, deadline=None, database=None, derandomize=True)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@STEADY
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(lost: int, won: int):
    expected = stats.binomtest(min(lost, won), lost + won).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(1, 5) == pytest.approx(2 * 7 / 64)
    assert mcnemar(3, 3) == 1.0


@STEADY
@given(PAIRS)
def test_flips_count_and_the_interval_holds_the_drop_of_a_row_more(pairs):
    found = flips([a for a, _ in pairs], [b for _, b in pairs])
    assert found.lost == pairs.count((True, False))
    assert found.won == pairs.count((False, True))
    assert found.drop == pytest.approx((found.lost - found.won) / len(pairs))
    low, high = found.interval
    assert -1 <= low < (found.lost - found.won) / (len(pairs) + 2) < high <= 1


@STEADY
@given(PAIRS)
def test_the_other_way_round_is_the_mirror_image(pairs):
    there, back = (flips([p[a] for p in pairs], [p[1 - a] for p in pairs]) for a in (0, 1))
    assert there.drop == -back.drop
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.p == back.p


def test_bonett_and_price_by_hand():
    before, after = [True] * 8 + [False] * 92, [True] * 2 + [False] * 97 + [True]
    found = flips(before, after)
    assert (found.lost, found.won) == (6, 1)
    fell, rose = 7 / 102, 2 / 102
    half = 1.959964 * math.sqrt((fell + rose - (fell - rose) ** 2) / 102)
    assert found.interval == pytest.approx((fell - rose - half, fell - rose + half), abs=1e-6)


def test_the_interval_covers_about_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(0)
    cells = [0.6, 0.06, 0.02, 0.32]  # both right, lost, won, both wrong: the drop is 0.04
    covered = 0
    for lost, won in rng.multinomial(300, cells, size=400)[:, 1:3]:
        rest = 300 - lost - won
        low, high = flips([True] * lost + [False] * won + [True] * rest, [False] * lost + [True] * won + [True] * rest).interval
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_rows_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="2 rows before and 1 after"):
        flips([True, True], [True])
    with pytest.raises(ValueError, match="cannot be paired"):
        flips([], [])


@pytest.mark.parametrize("n", [1, 5, 6, 20, 101, 500])
def test_the_median_lies_between_the_order_statistics_of_the_binomial(n: int):
    low, middle, high = median([float(k) for k in range(1, n + 1)])
    rank = int(stats.binom.ppf(0.025, n, 0.5))
    rank = rank if stats.binom.cdf(rank - 1, n, 0.5) <= 0.025 < stats.binom.cdf(rank, n, 0.5) else rank + 1
    if rank == 0:
        assert (low, high) == (0.0, math.inf)
    else:
        assert (low, high) == (rank, n + 1 - rank)
    assert low <= middle <= high


def test_a_median_of_rows_that_mostly_stand_is_infinite():
    assert median([1.0] * 10 + [math.inf] * 90) == (math.inf, math.inf, math.inf)
    with pytest.raises(ValueError, match="nothing"):
        median([])


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_enough_rows_are_just_enough(rate: float):
    needed = enough(rate)
    assert needed is not None
    assert rate == 0 or Score(count=needed, total=needed).interval[0] >= rate
    if needed > 1:
        assert Score(count=needed - 1, total=needed - 1).interval[0] < rate
    assert enough(1.0) is None


def told(right: int = 190, stood: int = 150, change=lambda report: report) -> Told:
    report, rows, _ = sample.evidence(right, stood)
    return Told(change(report), rows)


def test_two_reports_are_compared_row_by_row():
    clean, near = compared(told(), told(stood=148))
    assert (clean.what, clean.flips.lost, clean.flips.won) == ("clean", 0, 0)
    assert (near.what, near.lost, near.won) == ("linf 4/255", (148, 149), ())
    assert (near.before, near.after) == (Score(count=150, total=200), Score(count=148, total=200))
    assert near.flips.p == mcnemar(2, 0)
    assert compared(told(stood=148), told())[1].won == (148, 149)


def _data(report):
    return report.model_copy(update={"data": report.data.model_copy(update={"sha256": "ef" * 32})})


def _bounds(report):
    spec = report.data.spec.model_copy(update={"bounds": "none"})
    return report.model_copy(update={"data": report.data.model_copy(update={"spec": spec})})


def _suite(report):
    return report.model_copy(update={"job": report.job.model_copy(update={"suite": "standard"})})


def _knowledge(report):
    return report.model_copy(update={"job": report.job.model_copy(update={"knowledge": frozenset({"white"})})})


def _eps(report):
    (result,) = report.threats
    moved = result.model_copy(update={"threat": result.threat.model_copy(update={"eps": "8/255"})})
    return report.model_copy(update={"threats": (moved,)})


def _more(report):
    return report.model_copy(update={"threats": (*report.threats, *_eps(report).threats)})


def test_rows_that_are_not_the_same_ones_are_refused():
    one = told()
    other = Told(one.report, tuple(each._replace(rows=tuple(row + 1 for row in each.rows)) for each in one.rows))
    with pytest.raises(Incomparable, match="not the same ones of the data"):
        compared(one, other)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_data, f"data {'ab' * 32} against {'ef' * 32}"),
        (_bounds, "linf 4/255 is not among the threats of the second: bounds 0, 1 against none"),
        (_suite, "attacks quick@1 against standard@1"),
        (_knowledge, "knowledge black, gray, white against white"),
        (_eps, "eps 4/255 against "),
        (_more, "the second has 2 threats, the first 1"),
    ],
)
def test_what_is_not_the_same_is_refused_with_the_difference(change, said):
    with pytest.raises(Incomparable) as caught:
        compared(told(), told(change=change))
    assert said in str(caught.value)

"""The gambler is held to the definitions by a second one, written with numpy; the second is then let play two thousand games."""

import random
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from sparring.contract.betting import CAP, Bet, bet, interval, least

STEADY = settings(max_examples=25, deadline=None, database=None, derandomize=True)
ALPHA, RUNS = 0.05, 2000
numbers = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=80)


def words(x: np.ndarray, m: float, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """For each row of x (games, numbers): 1, -1 or 0 for holds, fails, open; and after how many numbers."""
    t = np.arange(1, x.shape[1] + 1)
    mean = (0.5 + np.cumsum(x, 1)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2, 1)) / (t + 1)
    start = np.ones((len(x), 1))
    mean, variance = np.hstack([start / 2, mean[:, :-1]]), np.hstack([start / 4, variance[:, :-1]])
    stake = (mean - m) / (variance + (mean - m) ** 2)
    up = np.cumsum(np.log1p(np.clip(stake, 0, CAP / m) * (x - m)), 1) + log(0.5)
    down = np.cumsum(np.log1p(-np.clip(-stake, 0, CAP / (1 - m)) * (x - m)), 1) + log(0.5)
    first = [np.where((each >= -log(alpha)).any(1), (each >= -log(alpha)).argmax(1), x.shape[1]) for each in (up, down)]
    return np.sign(first[1] - first[0]), np.minimum(*first) + 1


def upper(wrong: int, level: float = 0.99) -> float:
    """Upper end of Clopper and Pearson's one-sided interval for so many of RUNS."""
    return float(beta.ppf(level, wrong + 1, RUNS - wrong))


@STEADY
@given(numbers, st.floats(0.01, 0.99))
def test_it_bets_as_the_definitions_say(x: list[float], m: float):
    found = bet(x, m, ALPHA)
    word, at = words(np.array([x]), m)
    assert found.word == {1: "holds", -1: "fails", 0: "open"}[int(word[0])]
    assert found.at == (int(at[0]) if word[0] else 0)


@pytest.mark.parametrize("limit", [0.3, 0.5, 0.9])
def test_a_rate_just_below_the_limit_is_let_pass_as_rarely_as_promised(limit: float):
    x = (np.random.default_rng(1).random((RUNS, 800)) < limit - 1e-9).astype(float)
    word, _ = words(x, limit)
    assert upper(int((word == 1).sum())) <= ALPHA / 2 + 0.01
    assert upper(int((word == -1).sum())) <= ALPHA / 2 + 0.01


@pytest.mark.parametrize("flips", [0.04, 0.3])
def test_so_is_a_drop_just_above_the_limit(flips: float):
    drop = 0.02
    x = np.random.default_rng(2).choice([0.0, 0.5, 1.0], (RUNS, 800), p=[(flips + drop) / 2, 1 - flips, (flips - drop) / 2])
    word, _ = words(x, (1 - drop) / 2)
    assert upper(int((word == 1).sum())) <= ALPHA / 2 + 0.01


def test_the_order_in_which_rows_are_done_must_not_be_theirs_to_choose():
    """Had broken rows counted first, as soon as they are done, a rate well above the limit would fail."""
    x = (np.random.default_rng(3).random((200, 600)) < 0.95).astype(float)
    assert (words(x, 0.9)[0] == -1).mean() < 0.03
    assert (words(np.sort(x, 1), 0.9)[0] == -1).mean() > 0.9


def test_what_is_clear_is_soon_decided():
    x = (np.random.default_rng(4).random((400, 3000)) < 0.6).astype(float)
    word, at = words(x, 0.5)
    assert (word == 1).mean() > 0.97
    assert np.median(at) < 300


@STEADY
@given(numbers, st.floats(0.02, 0.98))
def test_the_interval_agrees_with_the_bets(x: list[float], m: float):
    low, high = interval(x, ALPHA)
    assert 0 <= low <= sum(x) / len(x) + 1e-9
    assert sum(x) / len(x) - 1e-9 <= high <= 1
    word = bet(x, m, ALPHA).word
    if word == "holds":
        assert m <= low + 2e-4
    if word == "fails":
        assert m >= high - 2e-4


def test_an_interval_that_covers_the_mean_at_every_time():
    draw = random.Random(5)
    missed = 0
    for _ in range(40):
        x = [float(draw.random() < 0.7) for _ in range(100)]
        low, high = interval(x, 0.2)
        missed += not low <= 0.7 <= high
    assert missed <= 14
    assert interval([], ALPHA) == pytest.approx((0, 1), abs=1e-3)


def test_how_many_rows_that_all_stand_show_a_rate():
    for m in (0.5, 0.9, 0.95):
        assert bet([1.0] * least(m, ALPHA), m, ALPHA).word == "holds"
        assert bet([1.0] * (least(m, ALPHA) - 1), m, ALPHA).word == "open"
    assert least(1.0, ALPHA, 500) is None


def test_a_word_once_given_stays():
    found = Bet(0.5, ALPHA)
    for x in [1.0] * 50 + [0.0] * 500:
        found.see(x)
    assert (found.word, found.seen) == ("holds", 550)
    assert found.at < 50


@pytest.mark.parametrize(("m", "alpha"), [(-0.1, 0.05), (1.1, 0.05), (0.5, 0), (0.5, 1)])
def test_nonsense_is_refused(m: float, alpha: float):
    with pytest.raises(ValueError, match="is in"):
        Bet(m, alpha)


def test_certainties_need_no_luck():
    assert bet([0.0] * 20, 1.0, ALPHA).word == "fails"
    assert bet([1.0] * 20, 0.0, ALPHA).word == "holds"
    assert bet([1.0] * 5000, 1.0, ALPHA).word == "open"

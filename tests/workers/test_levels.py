"""Attackers who know more and less, side by side."""

import numpy as np

from sparring.contract.attacks import FGSM, Noise, Square, Transfer
from sparring.contract.threat import Threat
from sparring.workers.levels import masked, results

ATTACKS = (FGSM(), Transfer(), Square(), Noise())
THREAT = Threat(norm="linf", eps=0.1)


def wins(*rows: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_each_level_joins_its_attacks_and_says_what_only_it_broke() -> None:
    white, gray, black = results(ATTACKS, wins("x...", ".x..", "x.xx", "...x", "...."), np.array([True, True, True, True, False]))
    assert [(one.knowledge, one.robust.count, one.alone) for one in (white, gray, black)] == [
        ("white", 2, 1),
        ("gray", 3, 1),
        ("black", 2, 1),
    ]
    assert white.robust.total == 5
    assert [one.knowledge for one in results((Square(),), wins("x"), np.array([True]))] == ["black"]


def test_a_weaker_attacker_who_wins_where_the_stronger_does_not_is_told_of() -> None:
    (found,) = masked(THREAT, ATTACKS, wins("..x.", "...x", "..xx", ".x.."))
    assert found.code == "weaker_attacker_wins"
    assert found.evidence == {"norm": "linf", "eps": 0.1, "knowledge": "black", "rows": 3}


def test_in_a_cascade_what_stands_before_a_white_box_attack_says_nothing_about_it() -> None:
    attacks = (Noise(), FGSM(), Square())
    noisy = wins("x..", "x..", "x..", "x..")
    assert len(list(masked(THREAT, attacks, noisy))) == 1
    assert not list(masked(THREAT, attacks, noisy, cascaded=True))
    assert len(list(masked(THREAT, attacks, wins("..x", "..x", "..x"), cascaded=True))) == 1


def test_two_rows_are_chance_and_so_is_a_share_of_very_many() -> None:
    assert not list(masked(THREAT, ATTACKS, wins("..x.", "...x", "x...")))
    many = np.zeros((1000, 4), dtype=np.bool_)
    many[:4, 2] = True
    assert not list(masked(THREAT, ATTACKS, many))
    many[4, 2] = True
    assert len(list(masked(THREAT, ATTACKS, many))) == 1
    assert not list(masked(THREAT, (Square(), Noise()), wins("x.", "x.", "x."))), "nobody had the weights"

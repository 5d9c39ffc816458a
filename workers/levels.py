"""Attacks by what the attacker knows: side by side, row by row."""

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sparring.contract.attacks import AttackSpec, Knowledge
from sparring.contract.report import Finding, LevelResult, Score
from sparring.contract.threat import Threat

LEVELS: tuple[Knowledge, ...] = get_args(Knowledge)
_LEAST, _SHARE = 3, 0.005  # rows, or a share of all: what chance alone does not do


def broken_at(attacks: Sequence[AttackSpec], wins: NDArray[np.bool_]) -> dict[Knowledge, NDArray[np.bool_]]:
    """(rows,) bool for each level that has an attack: broken by any of its attacks. `wins` is (rows, attacks)."""
    own = {level: [at for at, attack in enumerate(attacks) if attack.knowledge == level] for level in LEVELS}
    return {level: np.logical_or.reduce(wins[:, columns], axis=1) for level, columns in own.items() if columns}


def results(attacks: Sequence[AttackSpec], wins: NDArray[np.bool_], right: NDArray[np.bool_]) -> tuple[LevelResult, ...]:
    """Each level that has an attack; `right` (rows,) bool: right before any attack."""
    broken = broken_at(attacks, wins)
    count = sum(each.astype(np.int64) for each in broken.values())
    return tuple(
        LevelResult(
            knowledge=level,
            robust=Score(count=int((right & ~each).sum()), total=len(right)),
            alone=int((each & (count == 1)).sum()),
        )
        for level, each in broken.items()
    )


def masked(threat: Threat, attacks: Sequence[AttackSpec], wins: NDArray[np.bool_], *, cascaded: bool = False) -> Iterator[Finding]:
    """Rows that an attacker who knows less breaks and one with the weights does not: a sign that gradients mislead."""
    last = max((at for at, attack in enumerate(attacks) if attack.knowledge == "white"), default=0)
    # what was replayed, and in a cascade what stands before a white-box attack, broke rows that the latter had no try at
    searched = [at for at, a in enumerate(attacks) if a.kind != "replay" and (not cascaded or a.knowledge == "white" or at > last)]
    broken = broken_at([attacks[at] for at in searched], wins[:, searched])
    if not any(attack.knowledge == "white" and attack.kind != "uap" for attack in attacks):  # uap follows the gradients of other rows
        return
    for level in LEVELS[1:]:
        count = int((broken.get(level, broken["white"]) & ~broken["white"]).sum())
        if count >= max(_LEAST, _SHARE * len(wins)):
            yield Finding(
                code="weaker_attacker_wins",
                message=(
                    f"Under {threat.norm} {threat.eps} {count} rows fell to {level}-box attacks that no white-box attack broke: "
                    "the model's gradients may be masked."
                ),
                hint="Trust the smaller number; try more steps, restarts and other losses, and look for quantisation, saturation or noise.",
                evidence={"norm": threat.norm, "eps": threat.radius, "knowledge": level, "rows": count},
            )

"""The attacks a job may ask for: each class declares its settings once, with default, bounds and paper."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Discriminator

from sparring.contract.attacks.base import ACCESSES, Access, AttackBase, Knowledge, Loss
from sparring.contract.attacks.decision import Boundary, HopSkipJump, RayS
from sparring.contract.attacks.gradient import (
    APGD,
    BIM,
    DIFGSM,
    FGM,
    FGSM,
    MIFGSM,
    NIFGSM,
    PGD,
    RFGSM,
    SIFGSM,
    TIFGSM,
    VAT,
    GradientAscent,
)
from sparring.contract.attacks.gray import Substitute, Transfer
from sparring.contract.attacks.minimal import CW, DDN, EAD, FAB, FMN, JSMA, CWLinf, DeepFool
from sparring.contract.attacks.replay import Replay
from sparring.contract.attacks.search import NES, SPSA, Noise, SimBA, SparseRS, Square
from sparring.contract.attacks.universal import UAP
from sparring.contract.base import numbered, require_kind

Climbing = FGSM | FGM | RFGSM | GradientAscent | BIM | MIFGSM | DIFGSM | NIFGSM | SIFGSM | TIFGSM | PGD | APGD | VAT
Minimal = DeepFool | DDN | FMN | CW | CWLinf | EAD | JSMA | FAB
White = Climbing | Minimal | UAP
Gray = Transfer
Black = Square | SparseRS | NES | SPSA | SimBA | Boundary | HopSkipJump | RayS | Substitute
Listed = Noise | White | Gray | Black
AnyAttack = Listed | Replay
AttackSpec = Annotated[AnyAttack, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, ATTACKS))]
ATTACKS: tuple[type[Listed], ...] = get_args(Listed)
"""Every attack that a job may list, in the order of the union. Replay is asked for by the job's own `replay`."""

SuiteName = Literal["quick", "standard", "thorough", "levels", "defended"]

_STANDARD = (APGD(), APGD(loss="dlr", targets=9), FAB(targets=9), Square())

SUITES: dict[SuiteName, tuple[str, tuple[AnyAttack, ...]]] = {
    "quick": ("quick@1", (Noise(), FGSM(), FGM(), PGD(steps=10))),
    "standard": ("standard@1", _STANDARD),
    "thorough": (
        "thorough@1",
        (
            PGD(steps=50, restarts=5, loss="margin"),
            APGD(restarts=5),
            APGD(loss="dlr", restarts=5),
            APGD(loss="scaled", restarts=2),
            APGD(loss="dlr", targets=9, restarts=2),
            FAB(targets=9, restarts=2),
            FMN(steps=500),
            Square(queries=10_000, restarts=2),
        ),
    ),
    "levels": ("levels@1", (FGSM(), FGM(), PGD(steps=50), Transfer(), Substitute(), Square(queries=1000), Noise())),
    "defended": ("defended@1", (Noise(), FGSM(), FGM(), PGD(steps=20), APGD(loss="dlr", steps=50), Square(queries=500))),
}
"""Suites by name: version, and attacks in the order they are run."""

CASCADES: frozenset[SuiteName] = frozenset({"standard", "thorough"})
"""Suites that are run as a cascade unless the job says otherwise."""

PURPOSES: dict[SuiteName, str] = {
    "quick": "Seconds, for a first look: noise, single steps and a short PGD. A model it does not break may still be easy to break.",
    "standard": "What the standard version of AutoAttack runs, in its order: the number that papers compare.",
    "thorough": "All of standard with more restarts and queries, further losses, and FMN: for the number you want to stand by.",
    "levels": "The same threat from attackers who know more and less: the weights, the training data, or answers alone, side by side.",
    "defended": "A model before and after it was trained: the single step and the PGD that defenses train on, and attacks they do not.",
}
"""What each suite is for, in a sentence or two."""

__all__ = [
    "ACCESSES",
    "APGD",
    "ATTACKS",
    "BIM",
    "CASCADES",
    "CW",
    "DDN",
    "DIFGSM",
    "EAD",
    "FAB",
    "FGM",
    "FGSM",
    "FMN",
    "JSMA",
    "MIFGSM",
    "NES",
    "NIFGSM",
    "PGD",
    "PURPOSES",
    "RFGSM",
    "SIFGSM",
    "SPSA",
    "SUITES",
    "TIFGSM",
    "UAP",
    "VAT",
    "Access",
    "AnyAttack",
    "AttackBase",
    "AttackSpec",
    "Boundary",
    "CWLinf",
    "DeepFool",
    "GradientAscent",
    "HopSkipJump",
    "Knowledge",
    "Loss",
    "Noise",
    "RayS",
    "Replay",
    "SimBA",
    "SparseRS",
    "Square",
    "Substitute",
    "SuiteName",
    "Transfer",
    "names",
]


def names(attacks: tuple[AnyAttack, ...]) -> tuple[str, ...]:
    """One short unique name per attack: its kind, numbered from the second on (`pgd`, `pgd-2`)."""
    return numbered(attack.kind for attack in attacks)

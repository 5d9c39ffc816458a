"""The attacks a job may ask for: each class declares its settings once, with default, bounds and paper."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field

from sparring.contract.base import Frozen, require_kind
from sparring.contract.quantity import NotBool, PositiveQuantity, value
from sparring.contract.threat import Norm

Access = Literal["decision", "score", "gradient"]
Knowledge = Literal["white", "gray", "black"]
Loss = Literal["ce", "margin", "dlr"]

MAX_STEPS = 100_000
MAX_RESTARTS = 1_000


class AttackBase(Frozen):
    """What is true of an attack whatever its settings are."""

    title: ClassVar[str]
    paper: ClassVar[str]
    access: ClassVar[Access]
    """What the attack must be able to ask of the model."""
    knowledge: ClassVar[Knowledge]
    """What the attacker must know: the weights (white), the training data (gray), only answers (black)."""
    norms: ClassVar[tuple[Norm, ...]]
    """The norms it is defined for."""
    rows: ClassVar[Literal["independent", "joint"]] = "independent"
    bounded: ClassVar[bool] = True
    """It searches inside a given eps (as against looking for the smallest one)."""
    converges: ClassVar[bool] = True
    """On an affine model it succeeds wherever success is possible."""


class FGSM(AttackBase):
    """Fast gradient sign method: one step of size eps along the sign of the gradient."""

    title = "FGSM"
    paper = "Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572"
    access = "gradient"
    knowledge = "white"
    norms = ("linf",)

    kind: Literal["fgsm"] = "fgsm"
    loss: Loss = "ce"


class PGD(AttackBase):
    """Projected gradient descent: steepest steps of fixed size, projected back, from random starts."""

    title = "PGD"
    paper = "Madry et al. 2017, arXiv 1706.06083"
    access = "gradient"
    knowledge = "white"
    norms = ("linf", "l2")

    kind: Literal["pgd"] = "pgd"
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS), NotBool] = 40
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `2.5 * eps / steps` unless given."""
    restarts: Annotated[int, Field(ge=1, le=MAX_RESTARTS), NotBool] = 1
    start: Literal["random", "clean"] = "random"
    """Where the first restart begins; further restarts always begin at random."""
    loss: Loss = "ce"

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return 2.5 * eps / self.steps if self.alpha is None else value(self.alpha)


class Noise(AttackBase):
    """Random noise of the same size as the attack: the baseline every attack must beat."""

    title = "Random noise"
    paper = "baseline: uniform draws from the ball"
    access = "decision"
    knowledge = "black"
    norms = ("linf", "l2")
    converges = False

    kind: Literal["noise"] = "noise"
    draws: Annotated[int, Field(ge=1, le=MAX_STEPS), NotBool] = 10
    """Independent draws; a row counts as broken when any one of them is misclassified."""


AttackSpec = Annotated[FGSM | PGD | Noise, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, ATTACKS))]
ATTACKS: tuple[type[FGSM] | type[PGD] | type[Noise], ...] = get_args(get_args(AttackSpec)[0])
"""Every attack of the contract, in the order of the union."""

SuiteName = Literal["quick"]

SUITES: dict[SuiteName, tuple[str, tuple[FGSM | PGD | Noise, ...]]] = {
    "quick": ("quick@1", (Noise(), FGSM(), PGD(steps=10))),
}
"""Suites by name: version, and attacks from the cheapest to the dearest."""


def names(attacks: tuple[FGSM | PGD | Noise, ...]) -> tuple[str, ...]:
    """One short unique name per attack: its kind, numbered from the second on (`pgd`, `pgd-2`)."""
    seen: dict[str, int] = {}
    result = []
    for attack in attacks:
        seen[attack.kind] = seen.get(attack.kind, 0) + 1
        result.append(attack.kind if seen[attack.kind] == 1 else f"{attack.kind}-{seen[attack.kind]}")
    return tuple(result)

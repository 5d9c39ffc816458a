"""What is true of every attack whatever its settings are."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.quantity import NotBool
from sparring.contract.threat import Norm

Access = Literal["decision", "score", "gradient"]
ACCESSES: tuple[Access, ...] = get_args(Access)
"""Every access includes those before it."""
Knowledge = Literal["white", "gray", "black"]
Loss = Literal["ce", "margin", "dlr", "difference", "scaled", "kl"]

MAX_STEPS = 100_000
MAX_RESTARTS = 1_000
MIN_QUERIES, MAX_QUERIES = 10, 10_000_000
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS), NotBool]
Restarts = Annotated[int, Field(ge=1, le=MAX_RESTARTS), NotBool]
Passes = Annotated[int, Field(ge=1, le=MAX_RESTARTS), NotBool]
Targets = Annotated[int, Field(ge=0, le=MAX_RESTARTS), NotBool]
Queries = Annotated[int, Field(ge=MIN_QUERIES, le=MAX_QUERIES), NotBool]
Fraction = Annotated[float, Field(gt=0, le=1), NotBool]


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
    targetable: ClassVar[bool] = True
    """It can be asked to reach a class, and not only to leave one."""

    def step_size(self, eps: float) -> float | None:
        """Size of a step in a ball of radius `eps`, in units of the data; None where steps have no size that is set beforehand."""
        return None

"""What is true of every defense whatever its settings are."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.quantity import NotBool, Quantity, value

Family = Literal["plain", "noise", "penalty", "smoothness", "adversarial", "clustering"]
Neutral = Mapping[str, Any] | None
Transform = Literal["flip", "shift", "rotate", "colour"]

MAX_COUNT = 1_000
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), NotBool]
Share = Annotated[float, Field(ge=0, lt=1), NotBool]


class DefenseBase(Frozen):
    """What is true of a defense whatever its settings are."""

    title: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[Family]
    neutral: ClassVar[Neutral]
    """Settings at which it is plain training, bit for bit, on a model without batch norm and dropout; None where there are none."""
    labelled: ClassVar[bool] = True
    """It needs labels."""
    unlabelled: ClassVar[bool] = False
    """It learns from rows without labels too, where there are any."""

    @property
    def gradients(self) -> int:
        """Times each row goes forward and back through the model in one epoch; plain training is 1."""
        return 1


class Ball(DefenseBase):
    """A defense that trains on the worst point of a ball around each row."""

    family = "adversarial"
    neutral: ClassVar[Neutral] = {"eps": 0}

    norm: Literal["linf", "l2"] = "linf"
    """The norm of the ball."""
    eps: Quantity | None = None
    """Radius in units of the data; unless given 8/255 of the data's range in linf, 128/255 of it in l2."""

    def radius(self, span: float) -> float:
        """`eps` for data of this range, in units of the data."""
        if self.eps is None:
            return span * (8 if self.norm == "linf" else 128) / 255
        return value(self.eps)

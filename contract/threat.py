"""The threat: how far an attacker may move an input, in which norm, to what end."""

from typing import Literal

from sparring.contract.base import Frozen
from sparring.contract.quantity import Quantity, value

Norm = Literal["linf", "l2", "l1", "l0"]


class Threat(Frozen):
    """All x' with ||x' - x|| <= eps inside the data's bounds.

    A row is broken when the model's prediction on such an x' is wrong (untargeted), or is the row's target class
    (targeted; the target is drawn for each row from the other classes, by the job's seed).
    """

    norm: Norm
    eps: Quantity
    """Radius in units of the data itself (`[0, 1]` for images): a number or a ratio such as `8/255`."""
    targeted: bool = False

    @property
    def radius(self) -> float:
        """`eps` as a float64."""
        return value(self.eps)

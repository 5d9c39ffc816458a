"""Attacks that move every row alike."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.attacks.base import Steps
from sparring.contract.attacks.gradient import White
from sparring.contract.quantity import NotBool, PositiveQuantity, value

Batch = Annotated[int, Field(ge=1, le=10_000), NotBool]


class UAP(White):
    """Universal adversarial perturbation: one change that, added to any row, breaks as many as it can.

    It is fitted with the model's gradient before the attack, on rows that are not evaluated: those of the job's `training`, or else those
    of its data that come after the evaluated ones. Whoever attacks with it needs no time and no look at the row that is to come.
    """

    title = "UAP"
    paper = "Moosavi-Dezfooli et al. 2016, arXiv 1610.08401; fitted by gradients: Shafahi et al. 2018, arXiv 1811.11304"
    converges = False
    targetable = False

    kind: Literal["uap"] = "uap"
    steps: Steps = 100
    """Steps along the gradient, for all rows together."""
    batch: Batch = 128
    """Rows whose gradients are summed for a step, drawn from the job's seed."""
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `2.5 * eps / steps` unless given."""
    clip: PositiveQuantity = 9
    """The loss of a row counts up to here, so that few rows cannot rule the sum."""
    limit: Steps = 10_000
    """Rows to fit it on at most, drawn from the job's seed."""

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return 2.5 * eps / self.steps if self.alpha is None else value(self.alpha)

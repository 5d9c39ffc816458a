"""How a model is trained, whatever the defense."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.defenses.base import Share, Transform
from sparring.contract.quantity import Listed, NotBool, PositiveQuantity, Quantity, value

RATES = {"sgd": 1e-2, "adam": 1e-3, "adamw": 1e-3}


class Training(Frozen):
    """Settings of a training."""

    epochs: Annotated[int, Field(ge=1, le=100_000), NotBool] = 20
    """Passes over the data."""
    batch: Annotated[int, Field(ge=1, le=65_536), NotBool] = 64
    """Rows of one update."""
    unlabelled_batch: Annotated[int, Field(ge=1, le=65_536), NotBool] = 128
    """Rows without labels that stand beside them."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """How the weights step."""
    rate: PositiveQuantity | None = None
    """Learning rate at its highest; unless given 0.001 for adam and adamw, 0.01 for sgd."""
    momentum: Share = 0.9
    """Of sgd."""
    decay: Quantity = 0.0
    """Weight decay."""
    schedule: Literal["constant", "cosine", "linear", "cyclic", "steps"] = "cosine"
    """How the rate goes: constant; to 0 along a cosine or a line; up to its highest and down again (cyclic); to a tenth at half of the
    training and a hundredth at three quarters (steps)."""
    clip: PositiveQuantity | None = None
    """Largest length of the gradient of all weights together."""
    augment: Annotated[tuple[Transform, ...], Listed] = ()
    """Small random changes of the pictures before anything else."""
    awp: Quantity = 0.0
    """Adversarial weight perturbation: each layer's weights are moved against the model by this share of their length before it
    learns (gamma, 0.005 to 0.01 in the paper)."""
    awp_after: Share = 0.0
    """Share of the training before that begins."""
    average: Literal["none", "ema", "swa"] = "none"
    """What is handed out at the end: the last weights, their exponential moving average, or the mean of those at the ends of epochs."""
    ema: Share = 0.995
    """What the moving average keeps at each update; less at the beginning."""
    swa_after: Share = 0.5
    """Share of the training before the mean of weights begins."""
    monitor: Annotated[int, Field(ge=0, le=65_536), NotBool] = 128
    """Rows of the data on which accuracy is watched, at most a twentieth of them; 0 watches none, and then no guard does either."""
    seed: Annotated[int, Field(ge=0, lt=2**63), NotBool] = 0
    """Of the order of rows and of every draw."""

    @property
    def peak(self) -> float:
        """The learning rate at its highest."""
        return RATES[self.optimizer] if self.rate is None else value(self.rate)

"""Attacks that climb a loss inside the ball with the model's own gradient."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sparring.contract.attacks.base import AttackBase, Fraction, Loss, Passes, Restarts, Steps, Targets
from sparring.contract.quantity import NotBool, PositiveQuantity, Quantity, value
from sparring.contract.threat import Norm

Labels = Literal["true", "predicted"]


class White(AttackBase):
    """An attack with the model's weights in its hands."""

    access = "gradient"
    knowledge = "white"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")


class FGSM(White):
    """Fast gradient sign method: one step of size eps along the sign of the gradient."""

    title = "FGSM"
    paper = "Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572; without labels (UFGSM): Zhang, Wu 2019, arXiv 1904.01002"
    norms = ("linf",)

    kind: Literal["fgsm"] = "fgsm"
    loss: Loss = "ce"
    """What is climbed."""
    labels: Labels = "true"
    """What the loss is taken against: the data's labels, or the model's own predictions on the clean rows (UFGSM)."""


class FGM(White):
    """Fast gradient method: the whole budget along the gradient in one step; for l1, on the entries with the largest slope."""

    title = "FGM"
    paper = "Miyato, Dai, Goodfellow 2016, arXiv 1605.07725"
    norms = ("l2", "l1")

    kind: Literal["fgm"] = "fgm"
    loss: Loss = "ce"
    """What is climbed."""


class GradientAscent(White):
    """Steps along the raw gradient, neither signed nor normalised, projected back into the ball: a baseline."""

    title = "Gradient ascent"
    paper = "baseline: plain projected gradient ascent"
    norms = ("linf", "l2", "l1")
    converges = False

    kind: Literal["ascent"] = "ascent"
    steps: Steps = 20
    """Steps along the gradient."""
    rate: PositiveQuantity = 1.0
    """What the gradient of the loss is multiplied with."""
    loss: Loss = "ce"
    """What is climbed."""


class RFGSM(White):
    """Random FGSM: a random signed step first, then one gradient step with what is left of eps."""

    title = "R+FGSM"
    paper = "Tramer et al. 2017, arXiv 1705.07204"
    norms = ("linf",)
    converges = False

    kind: Literal["rfgsm"] = "rfgsm"
    share: Fraction = 0.5
    """The fraction of eps that goes into the random step."""
    loss: Loss = "ce"
    """What is climbed."""


class BIM(White):
    """Basic iterative method (I-FGSM): signed steps from the clean row."""

    title = "BIM (I-FGSM)"
    paper = "Kurakin, Goodfellow, Bengio 2016, arXiv 1607.02533"
    norms = ("linf",)

    kind: Literal["bim"] = "bim"
    steps: Steps = 10
    """Steps along the gradient."""
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `eps / steps` unless given."""
    loss: Loss = "ce"
    """What is climbed."""

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return eps / self.steps if self.alpha is None else value(self.alpha)


class MIFGSM(White):
    """Momentum iterative FGSM: steps along a decaying sum of normalised gradients."""

    title = "MI-FGSM"
    paper = "Dong et al. 2017, arXiv 1710.06081"

    kind: Literal["mifgsm"] = "mifgsm"
    steps: Steps = 10
    """Steps along the gradient."""
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `eps / steps` unless given."""
    decay: Quantity = 1.0
    """What is kept of the earlier gradients at each step."""
    loss: Loss = "ce"
    """What is climbed."""

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return eps / self.steps if self.alpha is None else value(self.alpha)


class DIFGSM(MIFGSM):
    """Diverse inputs: MI-FGSM whose gradients are taken through a random shrink and shift of the picture; made to transfer."""

    title = "DI-FGSM"
    paper = "Xie et al. 2018, arXiv 1803.06978"
    converges = False

    kind: Literal["difgsm"] = "difgsm"  # type: ignore[assignment]  # the same settings under another name
    diversity: Fraction = 0.5
    """How often a step looks through a transform."""
    shrink: Fraction = 0.9
    """The smallest size of the transformed picture, as a fraction of the original."""


class NIFGSM(MIFGSM):
    """Nesterov: MI-FGSM whose gradients are taken where the momentum is about to lead."""

    title = "NI-FGSM"
    paper = "Lin et al. 2019, arXiv 1908.06281"

    kind: Literal["nifgsm"] = "nifgsm"  # type: ignore[assignment]  # the same settings under another name


class SIFGSM(MIFGSM):
    """Scale invariance: MI-FGSM whose gradients are means over the input and its halves; made to transfer."""

    title = "SI-FGSM"
    paper = "Lin et al. 2019, arXiv 1908.06281"
    converges = False

    kind: Literal["sifgsm"] = "sifgsm"  # type: ignore[assignment]  # the same settings under another name
    copies: Annotated[int, Field(ge=1, le=16), NotBool] = 5
    """Inputs looked at in a step: x, x / 2, x / 4 …, in units of the data."""


class TIFGSM(MIFGSM):
    """Translation invariance: MI-FGSM whose gradients are blurred, as if taken on many shifts of the picture; made to transfer."""

    title = "TI-FGSM"
    paper = "Dong et al. 2019, arXiv 1904.02884"
    converges = False

    kind: Literal["tifgsm"] = "tifgsm"  # type: ignore[assignment]  # the same settings under another name
    reach: Annotated[int, Field(ge=0, le=64), NotBool] = 7
    """Pixels that the blur reaches to each side; the Gaussian's deviation is a third of it."""


class PGD(White):
    """Projected gradient descent: steepest steps of fixed size, projected back, from random starts."""

    title = "PGD"
    paper = "Madry et al. 2017, arXiv 1706.06083; l1 (SLIDE): Tramer, Boneh 2019, 1904.13000; EOT: Athalye et al. 2018, 1707.07397"
    norms = ("linf", "l2", "l1")

    kind: Literal["pgd"] = "pgd"
    steps: Steps = 40
    """Steps along the gradient."""
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `2.5 * eps / steps` unless given."""
    restarts: Restarts = 1
    """Runs from other starting points, for the rows that still stand."""
    start: Literal["random", "clean"] = "random"
    """Where the first restart begins; further restarts always begin at random."""
    loss: Loss = "ce"
    """What is climbed."""
    labels: Labels = "true"
    """What the loss is taken against: the data's labels, or the model's own predictions on the clean rows."""
    samples: Passes = 1
    """Passes the gradient is averaged over at each step (EOT), for models whose answer varies."""
    share: Fraction = 0.01
    """For l1 only: the fraction of the entries that one step moves."""

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return 2.5 * eps / self.steps if self.alpha is None else value(self.alpha)


class APGD(White):
    """Auto-PGD: momentum, and a step that halves by itself where it has stopped to pay, row by row; no step size to tune.

    With `targets` it is APGD-T: one run toward each of the classes that score highest on the clean row.
    """

    title = "APGD"
    paper = "Croce, Hein 2020, arXiv 2003.01690; l1: Croce, Hein 2021, arXiv 2103.01208"
    norms = ("linf", "l2", "l1")

    kind: Literal["apgd"] = "apgd"
    steps: Steps = 100
    """Steps along the gradient."""
    restarts: Restarts = 1
    """Runs from other random points; for each target if there are several."""
    loss: Loss = "ce"
    """What is climbed."""
    targets: Targets = 0
    """Classes to aim at, from the runner-up on; 0 aims at none. A job that is targeted itself has one class to aim at."""
    samples: Passes = 1
    """Passes the gradient is averaged over at each step (EOT), for models whose answer varies."""

    @model_validator(mode="after")
    def _aims(self) -> "APGD":
        if self.targets and self.loss not in ("dlr", "difference"):
            raise ValueError(f"targets: loss {self.loss} cannot aim at a class; give loss dlr or difference")
        return self


class VAT(White):
    """The direction of virtual adversarial training: where the prediction moves most, found by power iterations.

    It needs no label, and its KL divergence at eps measures how smooth the model is around its data.
    """

    title = "VAT direction"
    paper = "Miyato et al. 2017, arXiv 1704.03976"
    converges = False
    targetable = False

    kind: Literal["vat"] = "vat"
    iterations: Steps = 1
    """Power iterations; each costs one gradient."""
    xi: PositiveQuantity = 0.1
    """Length of the probing step in units of the data, at most eps."""

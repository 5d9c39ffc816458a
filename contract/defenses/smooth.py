"""Defenses that make the prediction vary slowly around the data: noise, penalties, virtual adversarial training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sparring.contract.defenses.base import Count, DefenseBase, Neutral, Share, Transform
from sparring.contract.quantity import Listed, NotBool, NotEmpty, PositiveQuantity, Quantity, value


class Plain(DefenseBase):
    """Plain training, no defense: what every other row of a table is compared with."""

    title = "Plain training"
    paper = "baseline: cross-entropy"
    family = "plain"
    neutral: ClassVar[Neutral] = {}

    kind: Literal["plain"] = "plain"


class Noise(DefenseBase):
    """Train on noise, at the input, at what enters every layer, or on the weights."""

    title = "Noise"
    paper = "Bishop 1995: Training with noise is equivalent to Tikhonov regularization"
    family = "noise"
    neutral: ClassVar[Neutral] = {"size": 0}

    kind: Literal["noise"] = "noise"
    where: Literal["input", "layers", "weights"] = "input"
    """What is made noisy: the rows, what enters each layer with weights but the first, or the weights themselves."""
    distribution: Literal["gaussian", "uniform", "bernoulli"] = "gaussian"
    """Gaussian noise is added; the others multiply: by a uniform draw around 1, or by 0 now and then and by more than 1 otherwise."""
    size: Quantity = 0.1
    """Gaussian: the standard deviation, as a share of the data's range (of the typical size of a layer's input or of a weight);
    uniform: the largest distance from 1; bernoulli: how often an entry becomes 0."""
    layers: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000), NotBool], ...], Listed] = ()
    """For `layers`: which of them, counted from 1, where 1 is the second layer with weights; all unless given."""
    samples: Count = 1
    """Draws whose losses are averaged at each update."""

    @model_validator(mode="after")
    def _probability(self) -> "Noise":
        if self.distribution == "bernoulli" and value(self.size) >= 1:
            raise ValueError("size: with bernoulli noise it is how often an entry becomes 0, and must be below 1")
        return self

    @property
    def gradients(self) -> int:
        """One for each draw."""
        return self.samples


class Mixup(DefenseBase):
    """Train on rows that are mixed with another of the batch, and on their labels mixed alike."""

    title = "Mixup"
    paper = "Zhang et al. 2017, arXiv 1710.09412"
    family = "noise"
    neutral: ClassVar[Neutral] = {"alpha": 0}

    kind: Literal["mixup"] = "mixup"
    alpha: Annotated[float, Field(ge=0, le=1), NotBool] = 0.2
    """Both parameters of the Beta distribution that shares are drawn from: with 1 any share is as likely as another, with less mostly
    one of the rows counts."""


class LabelSmoothing(DefenseBase):
    """A share of each label is spread over all classes, so that the model never learns to be certain."""

    title = "Label smoothing"
    paper = "Szegedy et al. 2015, arXiv 1512.00567"
    family = "penalty"
    neutral: ClassVar[Neutral] = {"share": 0}

    kind: Literal["label_smoothing"] = "label_smoothing"
    share: Share = 0.1
    """What is spread."""


class GradientPenalty(DefenseBase):
    """Penalise how steep the model is in its input, by a second backward pass through the gradient.

    `loss` is the squared gradient of the loss; `loss_l2` and `loss_l1` its length, which to first order is training with FGM and
    FGSM; `jacobian` sums the squared gradients of all logits; `fisher` those of the prediction, the trace of its Fisher information.
    """

    title = "Input-gradient penalty"
    paper = "Drucker, Le Cun 1992; Ross, Doshi-Velez 2017, arXiv 1711.09404; Fisher form: Miyato et al. 2015, arXiv 1507.00677"
    family = "penalty"
    neutral: ClassVar[Neutral] = {"weight": 0}

    kind: Literal["gradient_penalty"] = "gradient_penalty"
    of: Literal["loss", "loss_l2", "loss_l1", "jacobian", "fisher"] = "loss"
    """Whose gradient."""
    weight: Quantity = 0.1
    """Weight of the penalty; for `loss_l2` and `loss_l1` the eps of the step they stand for."""
    samples: Annotated[int, Field(ge=0, le=1000), NotBool] = 1
    """For `jacobian` and `fisher`: draws of random signs that the sum over classes is estimated from; 0 sums over every class."""

    @property
    def gradients(self) -> int:
        """The pass that learns, and the first backward pass."""
        return 2


class WeightPenalty(DefenseBase):
    """L1 and L2 on the weights of layers; biases and norms are left alone. L1 is a proximal step, so that weights become exactly 0."""

    title = "L1 and L2 penalty"
    paper = "baseline: weight penalties; proximal step: Parikh, Boyd 2014"
    family = "penalty"
    neutral: ClassVar[Neutral] = {"l1": 0, "l2": 0}

    kind: Literal["weight_penalty"] = "weight_penalty"
    l1: Quantity = 0.0
    """Weight of the sum of absolute values."""
    l2: Quantity = 1e-3
    """Weight of the sum of squares, as part of the loss."""


class Dropout(DefenseBase):
    """Drop entries of what enters each layer with weights, the first excepted; of any model, as it was uploaded.

    Once trained the model is what it was: nothing is dropped when it is used.
    """

    title = "Dropout"
    paper = "Srivastava et al. 2014: Dropout: a simple way to prevent neural networks from overfitting"
    family = "noise"
    neutral: ClassVar[Neutral] = {"p": 0}

    kind: Literal["dropout"] = "dropout"
    p: Share = 0.5
    """How often an entry is dropped."""


class LDS(DefenseBase):
    """Local distributional smoothing at random: the prediction shall not change under noise or a small change of the picture."""

    title = "Random smoothing (LDS, RPT)"
    paper = "Miyato et al. 2015, arXiv 1507.00677 (its random counterpart); transforms: Hu et al. 2017, arXiv 1702.08720"
    family = "smoothness"
    neutral: ClassVar[Neutral] = {"weight": 0}
    unlabelled = True

    kind: Literal["lds"] = "lds"
    by: Annotated[tuple[Literal["noise"] | Transform, ...], NotEmpty(), Listed] = ("noise",)
    """What the row undergoes, one after the other. All but noise need pictures."""
    eps: Quantity | None = None
    """Length of the noise in l2, in units of the data; unless given 0.3 times the typical distance of a row from the mean row."""
    samples: Count = 1
    """Draws whose divergences are averaged at each update."""
    weight: Quantity = 1.0
    """Weight of the divergence."""

    @property
    def gradients(self) -> int:
        """One to learn the label, one for each draw."""
        return self.samples + 1


class VAT(DefenseBase):
    """Virtual adversarial training: the prediction shall not change in the direction in which it changes most. It needs no labels.

    With a dataset without labels it learns from that as well. Entropy minimisation on top helps late in the training, and locks
    early mistakes in if it begins at once; hence its ramp.
    """

    title = "VAT"
    paper = "Miyato et al. 2017, arXiv 1704.03976; entropy: Grandvalet, Bengio 2004"
    family = "smoothness"
    neutral: ClassVar[Neutral] = {"weight": 0, "entropy": 0}
    unlabelled = True

    kind: Literal["vat"] = "vat"
    eps: Quantity | None = None
    """Length of the perturbation in l2, in units of the data; unless given 0.3 times the typical distance of a row from the mean row."""
    xi: PositiveQuantity | None = None
    """Length of the probing step in units of the data; unless given 0.01 times the typical distance of a row from the mean row."""
    iterations: Count = 1
    """Power iterations (K)."""
    weight: Quantity = 1.0
    """Weight of the divergence (alpha)."""
    entropy: Quantity = 0.0
    """Weight of the entropy of the predictions, once the ramp is over."""
    ramp: Share = 0.5
    """Share of the training before the entropy begins to count; from then on its weight rises evenly to the end."""

    @property
    def gradients(self) -> int:
        """One for each power iteration, one for the label and one for the divergence."""
        return self.iterations + 2


class IMSAT(DefenseBase):
    """Clustering: predictions that are certain, use all classes evenly, and do not change under virtual adversarial perturbations.

    Labels are not looked at. Begin from fresh weights; the last layer small.
    """

    title = "IMSAT"
    paper = "Hu et al. 2017, arXiv 1702.08720"
    family = "clustering"
    neutral: ClassVar[Neutral] = None
    labelled = False

    kind: Literal["imsat"] = "imsat"
    weight: PositiveQuantity = 0.1
    """Weight of the mutual information (lambda)."""
    balance: PositiveQuantity = 4.0
    """Weight, within that, of using all classes evenly (mu)."""
    reach: PositiveQuantity = 0.25
    """Length of the perturbation, as a share of the distance to a row's neighbour."""
    neighbour: Count = 10
    """Which neighbour that is."""
    xi: PositiveQuantity | None = None
    """Length of the probing step in units of the data; unless given 0.01 times the typical distance of a row from the mean row."""
    iterations: Count = 1
    """Power iterations (K)."""

    @property
    def gradients(self) -> int:
        """One for each power iteration, one for the prediction and one for the divergence."""
        return self.iterations + 2

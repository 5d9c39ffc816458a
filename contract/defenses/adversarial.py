"""Adversarial training: the rows are moved against the model before it learns from them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sparring.contract.attacks.gradient import Labels
from sparring.contract.attacks.gray import Surrogates
from sparring.contract.defenses.base import Adversarial, Count, Neutral, Share
from sparring.contract.quantity import NotBool, PositiveQuantity, Quantity, value

Inner = Literal["exact", "folded"]


class FGSMTraining(Adversarial):
    """Train on one step of the whole budget: along the signs of the gradient in linf (FGSM), along the gradient in l2 (FGM).

    Cheap, and prone to catastrophic overfitting: the model learns to fool the single step and falls to several. The guard stops it.
    """

    title = "FGSM training"
    paper = "Goodfellow, Shlens, Szegedy 2014, arXiv 1412.6572; FGM: Miyato, Dai, Goodfellow 2016, arXiv 1605.07725"

    kind: Literal["fgsm"] = "fgsm"
    guard: Share = 0.2
    """Training ends, with the last good weights, once accuracy under PGD falls by more than this below its best; 0 never ends it."""

    @property
    def gradients(self) -> int:
        """One to move, one to learn."""
        return 2


class FastTraining(Adversarial):
    """Fast adversarial training: one step from a random start, longer than the radius, then back into the ball."""

    title = "Fast-AT"
    paper = "Wong, Rice, Kolter 2020, arXiv 2001.03994"

    kind: Literal["fast"] = "fast"
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `1.25 * eps` unless given."""
    guard: Share = 0.2
    """Training ends, with the last good weights, once accuracy under PGD falls by more than this below its best; 0 never ends it."""

    @property
    def gradients(self) -> int:
        """One to move, one to learn."""
        return 2

    def step_size(self, eps: float) -> float:
        """Of the one step, in units of the data."""
        return 1.25 * eps if self.alpha is None else value(self.alpha)


class _Stepping(Adversarial):
    """Several steps of one size."""

    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `eps / 4` unless given."""

    def step_size(self, eps: float) -> float:
        """Of each step, in units of the data."""
        return eps / 4 if self.alpha is None else value(self.alpha)


class _Crafting(_Stepping):
    """Steps through the whole model, which the weights do not learn from."""

    steps: Count = 7
    """Steps along the gradient."""
    inner: Inner = "exact"
    """What the steps are taken on: the model itself in evaluation mode, or a copy with its batch norms folded away, which is faster
    and differs in the last digits."""
    ramp: Share = 0.0
    """Share of the training over which `eps` and `alpha` grow from 0. Under a large `eps` from the start, such as 0.3 on MNIST, a small
    model may never learn more than to guess."""


class PGDTraining(_Crafting):
    """Train on what projected gradient ascent finds: the baseline that others are measured against."""

    title = "PGD-AT"
    paper = "Madry et al. 2017, arXiv 1706.06083"

    kind: Literal["pgd"] = "pgd"
    start: Literal["random", "clean"] = "random"
    """Where the steps begin."""

    @property
    def gradients(self) -> int:
        """One for each step, one to learn."""
        return self.steps + 1


class FreeTraining(Adversarial):
    """Free adversarial training: each batch is replayed, and one backward pass moves both the weights and the rows.

    The perturbation stays from batch to batch, and the epochs are divided by the replays.
    """

    title = "Free-AT"
    paper = "Shafahi et al. 2019, arXiv 1904.12843"
    neutral: ClassVar[Neutral] = {"eps": 0, "replays": 1}

    kind: Literal["free"] = "free"
    replays: Count = 4
    """Updates for each batch (m)."""

    @property
    def gradients(self) -> int:
        """One for each replay, in epochs that are fewer."""
        return self.replays


class YOPO(_Stepping):
    """You only propagate once: few passes through the whole model, and several steps on its first layer for each of them."""

    title = "YOPO-m-n"
    paper = "Zhang et al. 2019, arXiv 1905.00877"
    neutral: ClassVar[Neutral] = {"eps": 0, "rounds": 1}

    kind: Literal["yopo"] = "yopo"
    rounds: Count = 5
    """Passes through the whole model (m); the weights learn from all of them."""
    steps: Count = 3
    """Steps through the first layer after each pass (n)."""

    @property
    def gradients(self) -> int:
        """One for each round; steps through the first layer alone do not count."""
        return self.rounds


class FreeLB(Adversarial):
    """Ascent whose every step also teaches the weights: gradients are averaged over the path, dropout masks stay the same on it."""

    title = "FreeLB"
    paper = "Zhu et al. 2019, arXiv 1909.11764"
    neutral: ClassVar[Neutral] = {"eps": 0, "steps": 1}

    kind: Literal["freelb"] = "freelb"
    norm: Literal["linf", "l2"] = "l2"
    """The norm of the ball."""
    steps: Count = 3
    """Passes the gradients are averaged over (K)."""
    alpha: PositiveQuantity | None = None
    """Step size in units of the data; `eps / 2` unless given."""

    @property
    def gradients(self) -> int:
        """One for each step."""
        return self.steps

    def step_size(self, eps: float) -> float:
        """Of each step, in units of the data."""
        return eps / 2 if self.alpha is None else value(self.alpha)


class TRADES(_Crafting):
    """Cross-entropy on the clean row, and the divergence to the point nearby where the prediction differs most."""

    title = "TRADES"
    paper = "Zhang et al. 2019, arXiv 1901.08573"
    neutral: ClassVar[Neutral] = {"beta": 0}

    kind: Literal["trades"] = "trades"
    beta: Quantity = 6.0
    """Weight of the divergence."""

    @property
    def gradients(self) -> int:
        """One for each step, and one each for the clean and the moved row."""
        return self.steps + 2


class MART(_Crafting):
    """Adversarial training with a margin, and a divergence that counts most where the clean row is misclassified.

    Its gradients are small, so that plain PGD flatters it: measure it with the suite standard.
    """

    title = "MART"
    paper = "Wang et al. 2020, ICLR: Improving adversarial robustness requires revisiting misclassified examples"
    neutral: ClassVar[Neutral] = {"eps": 0, "beta": 0, "margin": 0}

    kind: Literal["mart"] = "mart"
    beta: Quantity = 5.0
    """Weight of the divergence."""
    margin: Quantity = 1.0
    """Weight of the term that holds the most likely wrong class down."""

    @property
    def gradients(self) -> int:
        """One for each step, and one each for the clean and the moved row."""
        return self.steps + 2


class ALP(_Crafting):
    """Adversarial logit pairing: learn from the clean row and the moved one in halves, and hold their scores together.

    What it gains under plain PGD has mostly fallen to longer attacks (Engstrom, Ilyas, Athalye 2018): measure it with the suite standard.
    """

    title = "ALP"
    paper = "Kannan, Kurakin, Goodfellow 2018, arXiv 1803.06373; its limits: Engstrom, Ilyas, Athalye 2018, arXiv 1807.10272"
    neutral: ClassVar[Neutral] = {"eps": 0, "weight": 0}

    kind: Literal["alp"] = "alp"
    weight: Quantity = 0.5
    """Weight of the squared l2 distance between the scores of both (lambda)."""

    @property
    def gradients(self) -> int:
        """One for each step, and one each for the clean and the moved row."""
        return self.steps + 2


class FriendlyTraining(_Stepping):
    """Friendly adversarial training: a row stops moving soon after it is misclassified, so that the model learns from no worse ones.

    It costs fewer clean rows than PGD training, and mostly some robustness.
    """

    title = "Friendly AT"
    paper = "Zhang et al. 2020, arXiv 2002.11242"

    kind: Literal["friendly"] = "friendly"
    steps: Count = 7
    """Steps along the gradient, at most (K)."""
    further: Annotated[int, Field(ge=0, le=1000), NotBool] = 1
    """Steps a row still takes once it is misclassified (tau)."""

    @property
    def gradients(self) -> int:
        """One for each step, one to learn."""
        return self.steps + 1


class EnsembleTraining(Adversarial):
    """Ensemble adversarial training: each batch is moved by one step against one model, drawn evenly from that which learns and surrogates.

    The surrogates are uploaded models that stay as they are: what they teach does not grow weaker as the model learns to fool its own
    single step. It guards against attackers who know another model, and mostly less than `pgd` against one who has the weights.
    """

    title = "Ensemble training"
    paper = "Tramèr et al. 2017, arXiv 1705.07204"

    kind: Literal["ensemble"] = "ensemble"
    models: Surrogates = ()
    """Uploaded models to use as surrogates; `--surrogate FILE` uploads and adds one. A job needs at least one."""
    labels: Labels = "predicted"
    """What rows are moved away from: their labels, or what the model that they are moved against predicts, which gives no label away."""
    clean: bool = True
    """Learn from the rows as they are too, equally weighted."""

    @property
    def gradients(self) -> int:
        """One to move, one to learn, and one for the clean row."""
        return 3 if self.clean else 2

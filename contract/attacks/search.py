"""Attacks and baselines that need no gradient: random noise, and searches by scores."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sparring.contract.attacks.base import AttackBase, Fraction, Loss, Queries, Restarts, Steps
from sparring.contract.quantity import NotBool, PositiveQuantity, Quantity, value
from sparring.contract.threat import Norm

Pairs = Annotated[int, Field(ge=1, le=10_000), NotBool]


class Noise(AttackBase):
    """Random noise of the same size as the attack: the baseline every attack must beat."""

    title = "Random noise"
    paper = "baseline: draws from the ball"
    access = "decision"
    knowledge = "black"
    norms = ("linf", "l2", "l1")
    converges = False

    kind: Literal["noise"] = "noise"
    draws: Steps = 10
    """Independent draws; a row counts as broken when any one of them is misclassified."""
    distribution: Literal["uniform", "gaussian"] = "uniform"
    """Uniform in the ball; or Gaussian with a standard deviation such that its expected norm is eps, cut to the ball."""


class Scored(AttackBase):
    """A search that sees scores and nothing else."""

    access = "score"
    knowledge = "black"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    converges = False


class Square(Scored):
    """Square attack: random search with square patches of the largest allowed change, kept where the margin grows."""

    title = "Square"
    paper = "Andriushchenko et al. 2019, arXiv 1912.00049; l1: Croce, Hein 2021, arXiv 2103.01208"
    norms = ("linf", "l2", "l1")

    kind: Literal["square"] = "square"
    queries: Steps = 5000
    """Proposals for each row and restart."""
    share: Fraction = 0.8
    """First size of the patch, as a fraction of the picture; halves on a schedule over the queries."""
    restarts: Restarts = 1
    """Runs with other proposals, for the rows that still stand."""


class SparseRS(Scored):
    """Random search over which entries change: some go back, others to a limit instead, kept where the margin grows."""

    title = "Sparse-RS"
    paper = "Croce, Andriushchenko, Singh, Flammarion, Hein 2020, arXiv 2006.12834"
    norms = ("l0",)

    kind: Literal["sparse_rs"] = "sparse_rs"
    queries: Steps = 5000
    """Proposals for each row and restart."""
    share: Fraction = 0.3
    """Part of the changed entries that the first proposals replace; shrinks to a twentieth on a schedule over the queries."""
    restarts: Restarts = 1
    """Runs with other proposals, for the rows that still stand."""


class NES(Scored):
    """Natural evolution strategies: momentum steps along a slope that is estimated from pairs of opposite random probes."""

    title = "NES"
    paper = "Ilyas et al. 2018, arXiv 1804.08598"

    kind: Literal["nes"] = "nes"
    queries: Queries = 10_000
    """Most queries that a row may cost, the judge's look at a success included."""
    pairs: Pairs = 25
    """Gaussian directions of one estimate; each is probed forward and backward."""
    sigma: PositiveQuantity | None = None
    """Size of a probe in the threat's norm (linf: standard deviation of each entry); `eps / 50` unless given."""
    alpha: PositiveQuantity | None = None
    """First step size in units of the data; `eps / 5` unless given. It halves where five steps did not raise the loss."""
    decay: Quantity = 0.9
    """What is kept of the earlier estimates at each step."""
    loss: Loss = "ce"
    """What is climbed."""

    def step_size(self, eps: float) -> float:
        """First step size for a ball of radius `eps`, in units of the data."""
        return eps / 5 if self.alpha is None else value(self.alpha)

    def probe_size(self, eps: float) -> float:
        """Size of a probe for a ball of radius `eps`, in units of the data."""
        return eps / 50 if self.sigma is None else value(self.sigma)


class SPSA(Scored):
    """Simultaneous perturbation: Adam on a slope that is estimated from pairs of probes that move every entry by the same amount."""

    title = "SPSA"
    paper = "Uesato et al. 2018, arXiv 1802.05666"

    kind: Literal["spsa"] = "spsa"
    queries: Queries = 10_000
    """Most queries that a row may cost, the judge's look at a success included."""
    pairs: Pairs = 32
    """Random signs of one estimate; each is probed forward and backward."""
    sigma: PositiveQuantity | None = None
    """Size of a probe in the threat's norm; `eps / 10` unless given."""
    alpha: PositiveQuantity | None = None
    """Step size of Adam in the threat's norm, in units of the data; `eps / 2` unless given."""
    loss: Loss = "margin"
    """What is climbed."""

    def step_size(self, eps: float) -> float:
        """Step size for a ball of radius `eps`, in units of the data."""
        return eps / 2 if self.alpha is None else value(self.alpha)

    def probe_size(self, eps: float) -> float:
        """Size of a probe for a ball of radius `eps`, in units of the data."""
        return eps / 10 if self.sigma is None else value(self.sigma)


class SimBA(Scored):
    """Simple black-box attack: one direction of an orthonormal basis at a time, forward or else backward, kept where the loss grows."""

    title = "SimBA"
    paper = "Guo et al. 2019, arXiv 1905.07121"

    kind: Literal["simba"] = "simba"
    queries: Queries = 10_000
    """Most queries that a row may cost, the judge's look at a success included."""
    basis: Literal["pixel", "dct"] = "pixel"
    """Single entries in random order, or cosine waves across the picture (DCT-II), the slow ones first."""
    share: Fraction = 0.2
    """Size of a step in the threat's norm, as a fraction of eps."""
    loss: Loss = "ce"
    """What must grow: `ce` orders points as the label's probability does."""

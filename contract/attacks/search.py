"""Attacks and baselines that need no gradient."""

from typing import Literal

from sparring.contract.attacks.base import AttackBase, Fraction, Restarts, Steps


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


class Square(AttackBase):
    """Square attack: random search with square patches of the largest allowed change, kept where the margin grows."""

    title = "Square"
    paper = "Andriushchenko et al. 2019, arXiv 1912.00049"
    access = "score"
    knowledge = "black"
    norms = ("linf", "l2")
    converges = False

    kind: Literal["square"] = "square"
    queries: Steps = 5000
    """Proposals for each row and restart."""
    share: Fraction = 0.8
    """First size of the patch, as a fraction of the picture; halves on a schedule over the queries."""
    restarts: Restarts = 1
    """Runs with other proposals, for the rows that still stand."""

"""Attacks that look for the smallest change. One run gives the whole curve of accuracy against eps."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.attacks.base import Fraction, Restarts, Steps, Targets
from sparring.contract.attacks.gradient import White
from sparring.contract.quantity import NotBool, PositiveQuantity, Quantity


class DeepFool(White):
    """Steps onto the nearest of the linearised boundaries until the class changes. Fast, and an upper bound."""

    title = "DeepFool"
    paper = "Moosavi-Dezfooli, Fawzi, Frossard 2015, arXiv 1511.04599"
    bounded = False
    targetable = False

    kind: Literal["deepfool"] = "deepfool"
    steps: Steps = 50
    """Projections onto the linearised boundaries, at most."""
    candidates: Annotated[int, Field(ge=1, le=1000), NotBool] = 9
    """Classes considered beside the label, by their logits."""
    overshoot: Quantity = 0.02
    """By how much the sum of all steps is stretched."""


class CW(White):
    """Carlini-Wagner: minimises distance plus a weighted margin with Adam in tanh space; the weight is searched per row."""

    title = "C&W"
    paper = "Carlini, Wagner 2016, arXiv 1608.04644"
    norms = ("l2",)
    bounded = False
    converges = False  # Adam comes near the exact distance, to about a percent

    kind: Literal["cw"] = "cw"
    steps: Steps = 1000
    """Of each search step."""
    searches: Restarts = 9
    """Binary search steps on the weight."""
    rate: PositiveQuantity = 0.01
    """Step size of Adam."""
    weight: PositiveQuantity = 0.001
    """Where the search for the weight begins."""
    confidence: Quantity = 0.0
    """By how much the margin must be passed."""


class CWLinf(White):
    """Carlini-Wagner for linf: minimises changes beyond a limit plus a weighted margin; the limit shrinks for as long as that succeeds."""

    title = "C&W linf"
    paper = "Carlini, Wagner 2016, arXiv 1608.04644"
    norms = ("linf",)
    bounded = False
    converges = False  # Adam comes near the exact distance, to about a percent

    kind: Literal["cwlinf"] = "cwlinf"
    steps: Steps = 50
    """Of a round at most; the first success that comes nearer ends it."""
    rounds: Restarts = 50
    """Rounds at most: after a success with a smaller limit, else with a heavier weight."""
    shrink: Fraction = 0.9
    """The next limit, as a fraction of the distance reached."""
    rate: Fraction = 0.02
    """Step size of Adam, as a fraction of the distance reached."""
    weight: PositiveQuantity = 0.01
    """The first weight; it doubles where a round does not succeed."""
    heaviest: PositiveQuantity = 20.0
    """The weight at which it is not doubled again."""
    confidence: Quantity = 0.0
    """By how much the margin must be passed."""


class EAD(White):
    """Elastic net: minimises l2 and l1 distance plus a weighted margin by steps that undo small changes; the weight is searched per row."""

    title = "EAD"
    paper = "Chen, Sharma, Zhang, Yi, Hsieh 2017, arXiv 1709.04114"
    norms = ("l1",)
    bounded = False
    converges = False  # its momentum comes near the exact distance, to about a percent

    kind: Literal["ead"] = "ead"
    steps: Steps = 200
    """Of each search step."""
    searches: Restarts = 9
    """Binary search steps on the weight."""
    rate: PositiveQuantity = 0.01
    """First step size; it falls to zero with the square root of the steps that are left."""
    beta: PositiveQuantity = 0.05
    """What a step takes off the change of every entry, in units of the data: the larger, the fewer entries change (the paper's is 0.01)."""
    weight: PositiveQuantity = 0.001
    """Where the search for the weight begins."""
    confidence: Quantity = 0.0
    """By how much the margin must be passed."""


class DDN(White):
    """Decoupled direction and norm: walks on a sphere that shrinks while it succeeds and grows while it does not."""

    title = "DDN"
    paper = "Rony et al. 2018, arXiv 1811.09600"
    norms = ("l2",)
    bounded = False

    kind: Literal["ddn"] = "ddn"
    steps: Steps = 200
    """Steps along the gradient."""
    gamma: Fraction = 0.05
    """By how much the sphere shrinks or grows."""


class FMN(White):
    """Fast minimum-norm: the radius follows an estimate of the distance to the boundary; steps decay by a cosine."""

    title = "FMN"
    paper = "Pintor et al. 2021, arXiv 2102.12827"
    norms = ("linf", "l2", "l1", "l0")
    bounded = False

    kind: Literal["fmn"] = "fmn"
    steps: Steps = 200
    """Steps along the gradient."""
    gamma: Fraction = 0.05
    """First relative change of the radius; decays to 0.001 by a cosine."""
    restarts: Restarts = 1
    """Runs from other starting points; the nearest point of all is kept."""


class JSMA(White):
    """Jacobian-based saliency map: takes the entry that raises a class most and lowers the others most to its limit, then the next."""

    title = "JSMA"
    paper = "Papernot, McDaniel, Jha, Fredrikson, Celik, Swami 2015, arXiv 1511.07528"
    norms = ("l0",)
    bounded = False
    converges = False  # greedy: the entries of the largest slopes need not be the fewest

    kind: Literal["jsma"] = "jsma"
    steps: Steps = 100
    """Moves of an entry, for each target."""
    targets: Targets = 9
    """Classes to aim at, from the runner-up on, one run toward each; where the job names the class, that one alone."""
    saliency: Literal["logits", "softmax"] = "softmax"
    """Slopes of which outputs are weighed: with logits an entry must raise one and lower the sum of the others, at two queries a look."""
    theta: PositiveQuantity | None = None
    """How far an entry moves at a time, in units of the data; to its limit unless given, and by 1 where it has none."""


class FAB(White):
    """Fast adaptive boundary: projects on the linearised boundary, always pulled back toward the clean row.

    With `targets` it is FAB-T: one run toward each of the classes that score highest on the clean row, one gradient a step.
    """

    title = "FAB"
    paper = "Croce, Hein 2019, arXiv 1907.02044"
    norms = ("linf", "l2", "l1")
    bounded = False
    targetable = False

    kind: Literal["fab"] = "fab"
    steps: Steps = 100
    """Projections onto the linearised boundary."""
    restarts: Restarts = 1
    """Runs from other starting points; for each target if there are several. The nearest point of all is kept."""
    targets: Targets = 0
    """Classes to aim at, from the runner-up on; 0 goes to the nearest boundary of all."""
    pull: Fraction = 0.1
    """Most that a step is pulled toward the clean row (alpha_max)."""
    overshoot: PositiveQuantity = 1.05
    """Stretch of the projection step (eta)."""
    backward: Fraction = 0.9
    """After a success, the fraction of the way out from the clean row where the search goes on (beta)."""

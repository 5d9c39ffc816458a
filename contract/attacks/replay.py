"""What broke earlier versions of a model, shown to the next one."""

from typing import Literal

from sparring.contract.attacks.base import AttackBase
from sparring.contract.refs import JobRef


class Replay(AttackBase):
    """Adversarial examples that earlier evaluations kept of the same rows, shown to this model once each, before any other attack.

    A row is broken if one of them lies in the ball around it and within the bounds, and the judge says so. Rows of which none
    was kept are not tried.
    """

    title = "Replay"
    paper = "the earlier evaluations themselves"
    access = "decision"
    knowledge = "black"
    norms = ("linf", "l2", "l1", "l0")
    converges = False

    kind: Literal["replay"] = "replay"
    jobs: tuple[JobRef, ...]
    """The evaluations, in the order in which what they kept is tried."""

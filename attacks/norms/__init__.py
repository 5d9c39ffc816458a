"""The geometry of each norm. No other package asks which norm it is."""

from torch import Tensor

from sparring.attacks.norms.base import Ball, Bounds, Norm
from sparring.attacks.norms.l0 import L0
from sparring.attacks.norms.l1 import L1
from sparring.attacks.norms.l2 import L2
from sparring.attacks.norms.linf import LINF
from sparring.contract.threat import Norm as NormName

__all__ = ["NORMS", "Ball", "Bounds", "Norm", "ball", "called"]

NORMS: dict[NormName, Norm] = {"linf": LINF, "l2": L2, "l1": L1, "l0": L0}


def ball(name: NormName, centre: Tensor, eps: Tensor, bounds: Bounds) -> Ball:
    """The ball of radius `eps` (B,) about `centre` (B, …) inside `bounds`, both in units of the data."""
    norm = NORMS[name]
    low, high = norm.box(centre, eps.double(), bounds)
    return Ball(centre, eps.double(), low, high, norm, *(bounds or ()))


def called(norm: Norm) -> NormName:
    """What the contract calls a norm."""
    (name,) = (name for name, each in NORMS.items() if each == norm)
    return name

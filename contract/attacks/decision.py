"""Attacks that see decisions only: they walk along the boundary, toward the clean row."""

from typing import ClassVar, Literal

from sparring.contract.attacks.base import AttackBase, Fraction, Queries, Steps
from sparring.contract.threat import Norm


class Walker(AttackBase):
    """An attack that begins beyond the boundary, anywhere in the bounds, and comes nearer; it remembers the nearest point."""

    access = "decision"
    knowledge = "black"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    bounded = False


class Boundary(Walker):
    """Boundary attack: random steps along the sphere about the clean row, each followed by a small step inward, kept where they succeed."""

    title = "Boundary attack"
    paper = "Brendel, Rauber, Bethge 2017, arXiv 1712.04248"
    converges = False  # it comes as near as its queries allow, to about a percent

    kind: Literal["boundary"] = "boundary"
    queries: Queries = 25_000
    """Most queries that a row may cost."""
    spherical: Fraction = 0.01
    """First step along the sphere, as a fraction of the distance; it adapts so that about half of these steps succeed."""
    source: Fraction = 0.01
    """First step inward, as a fraction of the distance; it adapts so that about a quarter of the proposals succeed."""
    starts: Steps = 50
    """Random points compared, of which the one nearest to the clean row along its ray is the start; more, where none is beyond the boundary."""


class HopSkipJump(Walker):
    """HopSkipJump: finds the boundary by bisection, its direction there by many small random probes, and leaps along it."""

    title = "HopSkipJump"
    paper = "Chen, Jordan, Wainwright 2019, arXiv 1904.02144"
    norms = ("linf", "l2")
    converges = False  # the direction is a mean of random probes

    kind: Literal["hopskipjump"] = "hopskipjump"
    queries: Queries = 10_000
    """Most queries that a row may cost."""
    probes: Steps = 100
    """Probes of the first direction; they grow with the square root of the step's number, to 10,000 at most."""
    starts: Steps = 50
    """Random points compared, of which the one nearest to the clean row along its ray is the start; more, where none is beyond the boundary."""


class RayS(Walker):
    """RayS: looks for the ray of signs along which the boundary is nearest, turning ever smaller blocks of signs round."""

    title = "RayS"
    paper = "Chen, Gu 2020, arXiv 2006.12792"
    norms = ("linf",)

    kind: Literal["rays"] = "rays"
    queries: Queries = 10_000
    """Most queries that a row may cost."""
    precision: Fraction = 0.001
    """How exactly a radius is found, as a fraction of it."""

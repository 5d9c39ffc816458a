"""What proves that no point of a ball changes a row's class: each with the paper it is from."""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator

from sparring.contract.base import Frozen, require_kind
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.threat import Norm


class IntervalBounds(Frozen):
    """Intervals through every layer: quick, and loose unless the model was trained for them."""

    title: ClassVar[str] = "Interval bounds (IBP)"
    paper: ClassVar[str] = "Gowal et al. 2018, arXiv 1810.12715"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    kind: Literal["interval"] = "interval"


class LinearBounds(Frozen):
    """Lines above and below every curve, and intervals where those are tighter."""

    title: ClassVar[str] = "Linear bounds (CROWN)"
    paper: ClassVar[str] = "Zhang et al. 2018, arXiv 1811.00866"
    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    kind: Literal["crown"] = "crown"


AnyCertificate = IntervalBounds | LinearBounds | SmoothingCertificate
CERTIFICATES: tuple[type[AnyCertificate], ...] = get_args(AnyCertificate)


def _named(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else require_kind(given, CERTIFICATES)


Certificate = Annotated[AnyCertificate, Discriminator("kind"), BeforeValidator(_named)]
"""How a job certifies; a bare kind stands for its defaults."""

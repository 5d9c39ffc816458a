"""What stands before a model when it is used: each says how its gradient is to be attacked."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sparring.contract.base import Frozen
from sparring.contract.defenses.base import Count
from sparring.contract.quantity import NotBool, PositiveQuantity
from sparring.contract.threat import Norm

Gradient = Literal["exact", "bpda"]


class WrapperBase(Frozen):
    """What is true of a wrapper whatever its settings are."""

    title: ClassVar[str]
    paper: ClassVar[str]
    gradient: ClassVar[Gradient]
    """`exact`: its own slope is right; `bpda`: it has steps, and where they are its slope is taken to be 1 (Athalye et al. 2018)."""
    random: ClassVar[bool] = False
    """Its answers vary from pass to pass: attack it with several samples."""


class JPEG(WrapperBase):
    """Store the picture as JPEG and read it again."""

    title = "JPEG compression"
    paper = "Dziugaite, Ghahramani, Roy 2016, arXiv 1608.00853"
    gradient = "bpda"

    kind: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100), NotBool] = 75
    """Of the tables that coefficients are rounded by."""


class BitDepth(WrapperBase):
    """Round every entry to few bits."""

    title = "Bit depth reduction"
    paper = "Xu, Evans, Qi 2017, arXiv 1704.01155"
    gradient = "bpda"

    kind: Literal["bit_depth"] = "bit_depth"
    bits: Annotated[int, Field(ge=1, le=16), NotBool] = 4
    """Of each entry."""


class NoisyInput(WrapperBase):
    """Add fresh Gaussian noise at every pass."""

    title = "Noise at the input"
    paper = "baseline: Gaussian noise at inference"
    gradient = "exact"
    random = True

    kind: Literal["noisy_input"] = "noisy_input"
    sigma: PositiveQuantity = 0.1
    """Standard deviation in units of the data."""


class Smoothed(WrapperBase):
    """Randomized smoothing: the mean prediction over noisy copies of the row. The noise is not cut at the bounds of the data."""

    title = "Randomized smoothing"
    paper = "Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918"
    gradient = "exact"
    random = True

    kind: Literal["smoothed"] = "smoothed"
    sigma: PositiveQuantity = 0.25
    """Standard deviation in units of the data."""
    samples: Count = 16
    """Noisy copies of each row."""


class SmoothingCertificate(Frozen):
    """A radius in l2 within which the smoothed model provably keeps its class.

    The class is selected on some draws and its probability bounded on others, as it must be.
    """

    title: ClassVar[str] = "Certificate by randomized smoothing"
    paper: ClassVar[str] = "Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918"
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    kind: Literal["smoothing"] = "smoothing"
    sigma: PositiveQuantity = 0.25
    """Standard deviation of the noise in units of the data."""
    selection: Annotated[int, Field(ge=1, le=100_000), NotBool] = 100
    """Draws that the class is selected on."""
    samples: Annotated[int, Field(ge=1, le=10_000_000), NotBool] = 10_000
    """Draws that its probability is bounded on."""
    alpha: Annotated[float, Field(gt=0, lt=1), NotBool] = 0.001
    """How often a certificate may be wrong."""

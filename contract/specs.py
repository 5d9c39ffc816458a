"""What a user declares about an upload: how the model reads its input, and what the data's numbers mean."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, field_validator

from sparring.contract.base import Frozen
from sparring.contract.endpoints import EndpointSpec
from sparring.contract.quantity import CommaSeparated, NotBool, NotEmpty, PositiveReal, Real

Layout = Literal["NCHW", "NHWC"]
Arch = Literal["mlp", "lenet5", "cnn", "resnet18"]
ModelFormat = Literal["pt2", "safetensors", "state_dict", "onnx", "endpoint"]
DataFormat = Literal["npz"]

_MOST_CHANNELS = 900
"""Both lists in full length still fit into the address of an upload, which may be 64 KiB long."""
Bounds = tuple[float, float] | Literal["none"] | None
NPY_HEADER = 4096
"""Bytes of a .npy array in which its type stands."""


class ModelReading(Frozen):
    """How a model is to be read. Normalisation becomes its first layer, so that eps stays in units of the data."""

    arch: Arch | None = None
    """Architecture of the built-in zoo; needed for bare weights (safetensors, state dict), refused for a graph."""
    mean: Annotated[tuple[Real, ...], Field(max_length=_MOST_CHANNELS), NotEmpty(), CommaSeparated] | None = None
    """Subtracted from the input, one value or one per channel, in units of the data."""
    std: Annotated[tuple[PositiveReal, ...], Field(max_length=_MOST_CHANNELS), NotEmpty(), CommaSeparated] | None = None
    """Divides the centred input, one value or one per channel, in units of the data."""
    layout: Layout | None = None
    """The order of axes the model expects; NCHW unless said."""
    classes: Annotated[int, Field(ge=2, le=1_000_000), NotBool] | None = None
    """Number of classes; checked against the model's output when given."""

    @field_validator("std")
    @classmethod
    def _as_many(cls, std: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        mean = info.data.get("mean")
        if mean and std and len(mean) != len(std) and 1 not in (len(mean), len(std)):
            raise ValueError(f"mean has {len(mean)} values but std has {len(std)}: give one per channel in both, or a single one")
        return std


class ModelSpec(ModelReading):
    """All that is declared about a model."""

    endpoint: EndpointSpec | None = None
    """How it is asked, where it is an HTTP endpoint and not a file."""


class DataSpec(Frozen):
    """What the numbers of a dataset mean. `uint8` defaults to scale 1/255 and bounds [0, 1]; floats must declare bounds."""

    bounds: Annotated[tuple[Real, Real] | Literal["none"] | None, Field(examples=[[0, 1], "none"])] = None
    """Lowest and highest legal value after scaling; `none` where any real number is legal (EEG, embeddings)."""
    scale: PositiveReal | None = None
    """Stored numbers are multiplied by this; 1/255 for uint8, 1 otherwise, unless said."""
    layout: Layout | None = None
    """The order of axes in which rows are stored; NCHW unless said."""

    @field_validator("bounds", mode="wrap")
    @classmethod
    def _legal(cls, given: Any, handler: ValidatorFunctionWrapHandler) -> Bounds:
        try:
            bounds: Bounds = handler(given.split(",") if isinstance(given, str) and given != "none" else given)
        except ValidationError:
            # One sentence in place of a fault for each branch of the union.
            raise ValueError("must be two finite numbers, the lowest first, such as 0,1; or none") from None
        if isinstance(bounds, tuple) and not bounds[0] < bounds[1]:
            raise ValueError(f"the bounds are the wrong way round or empty: {bounds[0]} is not below {bounds[1]}")
        return bounds

    def lacks_bounds(self, array: bytes) -> str:
        """The type of the numbers, such as `f4`, of an array that begins with these bytes and means nothing without bounds; else empty.

        `array`: the first NPY_HEADER bytes of a .npy. Empty as well where its type cannot be told.
        """
        found = re.search(rb"'descr': '[<>|=]?([biuf]\d+)'", array) if array.startswith(b"\x93NUMPY") else None
        stored = found[1].decode() if found else ""
        told = self.bounds is not None or (stored == "u1" and self.scale in (None, 1 / 255))
        return "" if told else stored

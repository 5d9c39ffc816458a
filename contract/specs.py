"""What a user declares about an upload: how the model reads its input, and what the data's numbers mean."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sparring.contract.base import Frozen
from sparring.contract.quantity import CommaSeparated

Layout = Literal["NCHW", "NHWC"]
Arch = Literal["mlp", "lenet5", "cnn", "resnet18"]
ModelFormat = Literal["pt2", "safetensors", "state_dict", "onnx"]
DataFormat = Literal["npz"]

Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=4096), CommaSeparated]


class ModelSpec(Frozen):
    """How a model is to be read. Normalisation becomes its first layer, so that eps stays in units of the data."""

    arch: Arch | None = None
    """Architecture of the built-in zoo; needed for bare weights (safetensors, state dict), refused for a graph."""
    mean: Channels | None = None
    """Subtracted from the input, one value or one per channel, in units of the data."""
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=4096), CommaSeparated] | None = None
    """Divides the centred input, one value or one per channel, in units of the data."""
    layout: Layout | None = None
    """The order of axes the model expects; NCHW unless said."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Number of classes; checked against the model's output when given."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.mean and self.std and len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError(f"mean has {len(self.mean)} values but std has {len(self.std)}: give one per channel in both")
        return self


def _bounds(given: object) -> object:
    if isinstance(given, str) and given != "none":
        return [part for part in given.split(",") if part.strip()]
    return given


class DataSpec(Frozen):
    """What the numbers of a dataset mean. `uint8` defaults to scale 1/255 and bounds [0, 1]; floats must declare bounds."""

    bounds: Annotated[tuple[float, float] | Literal["none"] | None, Field(examples=[[0, 1], "none"])] = None
    """Lowest and highest legal value after scaling; `none` where any real number is legal (EEG, embeddings)."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Stored numbers are multiplied by this; 1/255 for uint8, 1 otherwise, unless said."""
    layout: Layout | None = None
    """The order of axes in which rows are stored; NCHW unless said."""

    @model_validator(mode="before")
    @classmethod
    def _written(cls, given: object) -> object:
        if isinstance(given, dict) and "bounds" in given:
            return {**given, "bounds": _bounds(given["bounds"])}
        return given

    @model_validator(mode="after")
    def _order(self) -> Self:
        if isinstance(self.bounds, tuple) and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds are the wrong way round or empty: {self.bounds[0]} is not below {self.bounds[1]}")
        return self

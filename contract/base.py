"""What every travelling object is: frozen, closed, finite."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that travels as JSON: immutable, unknown fields refused, no NaN and no infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )

"""Numbers a user may write as a decimal or as a ratio: `0.03` or `8/255`."""

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

_PATTERN = r"^\s*\d+(\.\d+)?(e-?\d+)?\s*(/\s*\d+(\.\d+)?\s*)?$"
_RATIO = re.compile(_PATTERN)
_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _PATTERN}]}


def value(quantity: float | str) -> float:
    """The float64 nearest to a quantity: `value("8/255") == 8 / 255`."""
    if not isinstance(quantity, str):
        return float(quantity)
    over, _, under = quantity.partition("/")
    return float(Fraction(over.strip()) / Fraction(under.strip() or 1))


def _quantity(given: Any) -> float | str:
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        raise ValueError("must be a number or a ratio such as '8/255'")
    if isinstance(given, str) and (len(given) > 40 or not _RATIO.match(given)):
        raise ValueError("must be a number or a ratio such as '8/255', and not negative")
    try:
        number = value(given)
    except (ZeroDivisionError, OverflowError):
        raise ValueError("must be a finite number: the ratio divides by zero or overflows") from None
    if not math.isfinite(number):
        raise ValueError("must be finite, not NaN or infinity")
    if number < 0:
        raise ValueError("must not be negative")
    if isinstance(given, str):
        return given.replace(" ", "") if "/" in given else number
    return given


def _positive(given: float | str) -> float | str:
    if value(given) <= 0:
        raise ValueError("must be greater than 0")
    return given


Quantity = Annotated[float | str, PlainValidator(_quantity), WithJsonSchema(_SCHEMA)]
"""A finite number >= 0, kept as it was written; `value` gives its float."""

PositiveQuantity = Annotated[float | str, PlainValidator(lambda v: _positive(_quantity(v))), WithJsonSchema(_SCHEMA)]
"""A finite number > 0, kept as it was written."""


def _numbers(given: Any) -> Any:
    """Lets a query string or a command line write `0.49,0.48,0.45`."""
    if isinstance(given, str):
        return [part for part in given.split(",") if part.strip()]
    return given


CommaSeparated = BeforeValidator(_numbers)

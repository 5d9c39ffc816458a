"""Numbers a user may write as a decimal or as a ratio, `0.03` or `8/255`, and lists of them."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainValidator, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

Items = TypeVar("Items", tuple[Any, ...], frozenset[Any])

LARGEST, SMALLEST = 1e30, 1e-30
"""What a user may declare stays below and above these, so that it is neither infinite nor 0 in float32."""

_LONGEST = 40
_PLAIN = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
_PATTERN = rf"^ *{_PLAIN}([eE][+-]?[0-9]+| */ *{_PLAIN})? *$"
_WRITTEN = re.compile(_PATTERN)
_WANTED = "must be a number or a ratio such as '8/255'"


def value(quantity: float | str) -> float:
    """The float64 nearest to a quantity: `value("8/255") == 8 / 255`."""
    if isinstance(quantity, str) and "/" in quantity:
        over, _, under = quantity.partition("/")
        return float(Fraction(over.strip()) / Fraction(under.strip()))
    return float(quantity)


def as_written(number: float) -> str:
    """The number, to the last bit, as one would write it: `0.1`, or `8/255` where no short decimal is the same."""
    short, steps = f"{number:g}", round(255 * number) if 0 < number < 1 else 0
    if float(short) == number:
        return short
    return f"{steps}/255" if steps and number == steps / 255 else str(number)


def _quantity(given: Any) -> float | str:
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        raise ValueError(_WANTED)
    if isinstance(given, str) and (len(given) > _LONGEST or not _WRITTEN.fullmatch(given)):
        raise ValueError(f"{_WANTED}, not negative, and of at most {_LONGEST} characters")
    try:
        number = value(given)
    except ZeroDivisionError:
        raise ValueError("must be a finite number: the ratio divides by zero") from None
    except OverflowError:
        raise ValueError(f"must be a finite number of at most {LARGEST:g}") from None
    if not number <= LARGEST:
        raise ValueError(f"must be a finite number of at most {LARGEST:g}")
    if number < 0:
        raise ValueError("must not be negative")
    if isinstance(given, str):
        return given.replace(" ", "") if "/" in given else number
    return given


def _positive(given: Any) -> float | str:
    quantity = _quantity(given)
    if value(quantity) <= 0:
        raise ValueError("must be greater than 0")
    return quantity


def _schema(**lowest: int) -> WithJsonSchema:
    text = {"type": "string", "pattern": _PATTERN, "maxLength": _LONGEST}
    return WithJsonSchema({"anyOf": [{"type": "number", **lowest, "maximum": LARGEST}, text]})


Quantity = Annotated[int | float | str, PlainValidator(_quantity), _schema(minimum=0)]
"""A number from 0 to LARGEST, kept as it was written; `value` gives its float."""

PositiveQuantity = Annotated[int | float | str, PlainValidator(_positive), _schema(exclusiveMinimum=0)]
"""A number above 0 and up to LARGEST, kept as it was written."""


def _no_bool(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError("must be a number, not true or false")
    return given


NotBool = BeforeValidator(_no_bool)
"""For an int or a float: refuses the booleans, which Python counts among the integers."""


def _in_float32(given: float) -> float:
    if given and not SMALLEST <= abs(given) <= LARGEST:
        raise ValueError(f"must be of a size between {SMALLEST:g} and {LARGEST:g}")
    return given


Real = Annotated[float, AfterValidator(_in_float32), NotBool]
"""A number that is finite in float32."""

PositiveReal = Annotated[float, Field(gt=0), AfterValidator(_in_float32), NotBool]
"""A number above 0 that is neither 0 nor infinite in float32."""


def _listed(given: Any) -> Any:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise PydanticKnownError("list_type")
    return given


Listed = BeforeValidator(_listed)
"""For a tuple or a set: a fault speaks of a list, which is what JSON calls it."""


def _numbers(given: Any) -> Any:
    if not isinstance(given, str):
        return _listed(given)
    parts = [part.strip() for part in given.split(",")]
    if not all(parts):
        raise ValueError("must be numbers with one comma between any two, such as 0.5,0.4: a number is missing")
    return parts


CommaSeparated = BeforeValidator(_numbers)
"""Lets a query string or a command line write `0.49,0.48,0.45`."""


class NotEmpty:
    """For a list: at least one item. Unlike `min_length` it is silent where the items themselves are at fault."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The check, after that of the items."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The words of JSON Schema for it."""
        return handler(schema) | {"minItems": 1}

    @staticmethod
    def _check(items: Items) -> Items:
        if not items:
            raise PydanticKnownError("too_short", {"field_type": "List", "min_length": 1, "actual_length": 0})
        return items


def _names(given: Any) -> Any:
    return given.split("+") if isinstance(given, str) else _listed(given)


PlusSeparated = BeforeValidator(_names)
"""For a tuple of words, which a user may write as `mlp+cnn`."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sparring.contract.quantity import LARGEST, PositiveQuantity, Quantity, as_written, value

QUANTITY: TypeAdapter[float | str] = TypeAdapter(Quantity)
POSITIVE: TypeAdapter[float | str] = TypeAdapter(PositiveQuantity)

decimals = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,8})?|\.[0-9]{1,8}", fullmatch=True).filter(str.isascii)


def fault(adapter, given):
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(given)
    (only,) = caught.value.errors()
    return only["msg"]


@pytest.mark.parametrize(
    ("written", "kept", "number"),
    [
        (0, 0, 0.0),
        (3, 3, 3.0),
        (0.03, 0.03, 0.03),
        ("0.03", 0.03, 0.03),
        (".5", 0.5, 0.5),
        ("1.", 1.0, 1.0),
        ("1e-3", 0.001, 0.001),
        ("1E-3", 0.001, 0.001),
        ("2.5e+2", 250.0, 250.0),
        ("  0.1 ", 0.1, 0.1),
        ("8/255", "8/255", 8 / 255),
        (" 8 / 255 ", "8/255", 8 / 255),
        ("0.5/.25", "0.5/.25", 2.0),
        ("0/7", "0/7", 0.0),
        ("1e30", 1e30, 1e30),
        (LARGEST, LARGEST, 1e30),
    ],
)
def test_what_is_a_quantity(written, kept, number):
    found = QUANTITY.validate_python(written)
    assert (found, type(found)) == (kept, type(kept))
    assert value(found) == number


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "a number or a ratio"),
        ("x", "a number or a ratio"),
        (".", "a number or a ratio"),
        ("8/255\n", "a number or a ratio"),
        ("0.5\n", "a number or a ratio"),
        ("\t1", "a number or a ratio"),
        ("1e-3/2", "a number or a ratio"),
        ("8/255/2", "a number or a ratio"),
        ("1_0", "a number or a ratio"),
        ("0x10", "a number or a ratio"),
        ("nan", "a number or a ratio"),
        ("inf", "a number or a ratio"),
        ("٣", "a number or a ratio"),
        ("-1", "not negative"),
        ("1" * 41, "at most 40 characters"),
        (True, "a number or a ratio"),
        (None, "a number or a ratio"),
        ([0.1], "a number or a ratio"),
        (-0.1, "not be negative"),
        (-math.inf, "not be negative"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (1.1e30, "at most 1e+30"),
        (10**400, "at most 1e+30"),
        ("1e31", "at most 1e+30"),
        ("1e19999999", "at most 1e+30"),
        ("1" * 35 + "/.001", "at most 1e+30"),
        ("8/0", "divides by zero"),
        ("0/0.0", "divides by zero"),
    ],
)
def test_what_is_none_says_why(written, said):
    assert said in fault(QUANTITY, written)


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0/5", "0e5", "1e-400"])
def test_a_positive_quantity_is_not_zero(zero):
    QUANTITY.validate_python(zero)
    assert "greater than 0" in fault(POSITIVE, zero)
    assert POSITIVE.validate_python("2/255") == "2/255"


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(decimals, decimals)
def test_a_ratio_is_rounded_once(over, under):
    if not Fraction(under):
        assert "divides by zero" in fault(QUANTITY, f"{over}/{under}")
    else:
        exact = Fraction(over) / Fraction(under)
        assert value(QUANTITY.validate_python(f"{over} / {under}")) == float(exact)


def test_the_largest_is_finite_in_float32_where_attacks_compute():
    assert np.isfinite(np.float32(value(QUANTITY.validate_python("1e30"))))


def test_the_schemas_say_which_numbers():
    lowest = [adapter.json_schema()["anyOf"][0] for adapter in (QUANTITY, POSITIVE)]
    assert lowest == [
        {"type": "number", "minimum": 0, "maximum": 1e30},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1e30},
    ]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0.1, "0.1"),
        (8 / 255, "8/255"),
        (51 / 255, "0.2"),
        (3.0, "3"),
        (0.03137, "0.03137"),
        (0.0, "0"),
        (1234567.0, "1234567.0"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_are_written_as_one_would(number, told):
    assert as_written(number) == told


@given(st.floats(0, 1e6))
def test_what_is_written_is_the_same_number(number):
    assert value(as_written(number)) == number

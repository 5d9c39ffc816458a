"""Arithmetic on sizes, as graphs do it: on plain numbers only, and never beyond 64 bits, so that no size can grow without end."""

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

from sparring.workers.errors import Refused

Number = int | float
LIMIT = 2**63


def checked(function: Callable[..., Number]) -> Callable[..., Number]:
    """`function`, refusing anything but numbers and results beyond 64 bits."""

    def bounded(*numbers: Number) -> Number:
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise Refused("bad_model", f"the graph applies {function.__name__} to something that is no number", detail="malformed")
        result = function(*numbers)
        if not -LIMIT <= result < LIMIT:
            raise Refused("bad_model", "the graph computes a size beyond 64 bits", detail="malformed")
        return result

    # torch.fx writes calls by __module__ and __name__; functions of `operator` it would write as bare a + b
    bounded.__name__ = bounded.__qualname__ = f"size_{function.__name__}"
    return bounded


SIZES: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        "_operator.add": checked(operator.add),
        "_operator.sub": checked(operator.sub),
        "_operator.mul": checked(operator.mul),
        "_operator.floordiv": checked(operator.floordiv),
        "_operator.truediv": checked(operator.truediv),
        "_operator.mod": checked(operator.mod),
        "_operator.neg": checked(operator.neg),
        "_operator.eq": checked(operator.eq),
        "_operator.ne": checked(operator.ne),
        "_operator.lt": checked(operator.lt),
        "_operator.le": checked(operator.le),
        "_operator.gt": checked(operator.gt),
        "_operator.ge": checked(operator.ge),
        "math.trunc": checked(math.trunc),
        "torch.sym_int": checked(math.trunc),
        "torch.sym_float": checked(float),
        "torch.sym_max": checked(max),
        "torch.sym_min": checked(min),
    }
)
"""What a graph may call on sizes, by target."""

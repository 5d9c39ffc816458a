"""Arguments of graph nodes: each kind the schema knows, read as plain data. A kind not listed here is refused."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from sparring.workers.errors import shown
from sparring.workers.pt2.archive import malformed
from sparring.workers.pt2.schema import DTYPES, MEMORY_FORMATS, STRIDED, Argument

_STRING = re.compile(r"[A-Za-z0-9_,.\-> ]{0,100}")
"""Names of modes (`reflect`, `floor`, `tanh`) and einsum equations."""
_NONFINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

Names = Mapping[str, Node]


def read(argument: Argument, names: Names) -> Any:
    """The value of an argument; tensors and sizes are nodes, looked up in `names`. Raises Refused for anything unexpected."""
    kind, given = only(argument)
    if kind in _LISTS:
        return [_READERS[_LISTS[kind]](item, names) for item in sequence(given)]
    if kind not in _READERS:
        raise malformed(f"the graph has an argument of the unknown kind {shown(kind)}")
    return _READERS[kind](given, names)


def only(union: object) -> tuple[str, Any]:
    """Kind and content of a tagged union. Raises Refused unless it has exactly one entry."""
    if not isinstance(union, dict) or len(union) != 1:
        raise malformed(f"the graph has an argument that is not one of a kind: {shown(union)}")
    ((kind, given),) = union.items()
    return kind, given


def sequence(given: object) -> list[Any]:
    """A JSON list, or Refused."""
    if not isinstance(given, list):
        raise malformed(f"the graph has {shown(given)} where a list is due")
    return given


def name_of(given: object) -> str:
    """The name in `{"name": …}`, or Refused."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise malformed(f"the graph has {shown(given)} where a name is due")
    return str(given["name"])


def _lookup(name: object, names: Names) -> Node:
    if not isinstance(name, str) or name not in names:
        raise malformed(f"the graph uses {shown(name)} before it is made")
    return names[name]


def _tensor(given: object, names: Names) -> Node:
    return _lookup(name_of(given), names)


def _optional(given: object, names: Names) -> Node | None:
    kind, content = only(given)
    return None if kind == "as_none" else _tensor(content, names)


def _none(given: object, names: Names) -> None:
    return None


def _int(given: object, names: Names) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not -(2**63) <= given < 2**63:
        raise malformed(f"the graph has {shown(given)} where an integer is due")
    return given


def _float(given: object, names: Names) -> float:
    if isinstance(given, str) and given in _NONFINITE:
        return _NONFINITE[given]
    if not isinstance(given, (int, float)) or isinstance(given, bool):
        raise malformed(f"the graph has {shown(given)} where a number is due")
    return float(given)


def _bool(given: object, names: Names) -> bool:
    if not isinstance(given, bool):
        raise malformed(f"the graph has {shown(given)} where true or false is due")
    return given


def _string(given: object, names: Names) -> str:
    if not isinstance(given, str) or not _STRING.fullmatch(given):
        raise malformed(f"the graph has the string {shown(given)}, which no operator takes")
    return given


def _symbol(given: object, names: Names) -> Node | int | float | bool:
    kind, content = only(given)
    if kind == "as_name":
        return _lookup(content, names)
    if kind not in ("as_int", "as_float", "as_bool"):
        raise malformed(f"the graph has a size of the unknown kind {shown(kind)}")
    plain: int | float | bool = _READERS[kind](content, names)
    return plain


def _dtype(given: object, names: Names) -> torch.dtype:
    if _int(given, names) not in DTYPES:
        raise malformed(f"the graph names the unknown scalar type {shown(given)}")
    return DTYPES[_int(given, names)]


def _memory_format(given: object, names: Names) -> torch.memory_format:
    if _int(given, names) not in MEMORY_FORMATS:
        raise malformed(f"the graph names the unknown memory format {shown(given)}")
    return MEMORY_FORMATS[_int(given, names)]


def _layout(given: object, names: Names) -> torch.layout:
    if given != STRIDED:
        raise malformed(f"the graph names the layout {shown(given)}; only dense tensors are read")
    return torch.strided


def _device(given: object, names: Names) -> torch.device:
    """Whatever device the graph names, it runs on ours; see SwitchedGraph."""
    return torch.device("cpu")


_READERS: dict[str, Callable[[object, Names], Any]] = {
    "as_none": _none,
    "as_tensor": _tensor,
    "as_optional_tensor": _optional,
    "as_int": _int,
    "as_float": _float,
    "as_bool": _bool,
    "as_string": _string,
    "as_sym_int": _symbol,
    "as_sym_float": _symbol,
    "as_sym_bool": _symbol,
    "as_scalar_type": _dtype,
    "as_memory_format": _memory_format,
    "as_layout": _layout,
    "as_device": _device,
}
_LISTS = {
    "as_tensors": "as_tensor",
    "as_optional_tensors": "as_optional_tensor",
    "as_ints": "as_int",
    "as_floats": "as_float",
    "as_bools": "as_bool",
    "as_sym_ints": "as_sym_int",
    "as_sym_floats": "as_sym_float",
    "as_sym_bools": "as_sym_bool",
}

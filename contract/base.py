"""What every travelling object is: frozen, closed, finite."""

from collections.abc import Iterable
from typing import Any

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


def require_kind(given: Any, known: Iterable[type[BaseModel]]) -> Any:
    """What was given for a union told apart by `kind`; ValueError lists the known kinds where it names none."""
    if isinstance(given, dict) and "kind" not in given:
        raise ValueError(f"the kind is missing: give one of {', '.join(model.model_fields['kind'].default for model in known)}")
    return given


def numbered(kinds: Iterable[str]) -> tuple[str, ...]:
    """Each kind as a unique name, numbered from the second on: `pgd`, `pgd-2`."""
    seen: dict[str, int] = {}
    result = []
    for kind in kinds:
        seen[kind] = seen.get(kind, 0) + 1
        result.append(kind if seen[kind] == 1 else f"{kind}-{seen[kind]}")
    return tuple(result)

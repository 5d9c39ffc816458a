"""What is wrong with a form, field by field."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi_problem.error import Problem
from pydantic import ValidationError

from sparring.service.problems import faults_of

Faults = dict[str, str]
"""A sentence for each faulty field; under the empty name what is about none of them."""

GENERAL = ""
_PLAINER = (
    ("must be letters, digits, space", "Only letters, digits, space and . _ + -, and at most 100 of them"),
    ("must be an id (", "That is not one of those there are"),
    ("must be the id of a job", "That is not one of those there are"),
    ("must have at least 1 item", "Choose at least one"),
    ("must be a whole number (", "That is not a whole number"),
    ("must be a number (", "That is not a number"),
)
"""How a fault begins, and what is said to people who fill in a form."""


def named(pointer: str, places: Sequence[tuple[str, str]]) -> str:
    """The field at a JSON pointer, by the longest pointer in `places` that leads there."""
    fits = [(len(place), name) for place, name in places if pointer == place or pointer.startswith(f"{place}/")]
    return max(fits, default=(0, GENERAL))[1]


def of_validation(error: ValidationError, given: Mapping[str, Any], places: Sequence[tuple[str, str]] | None = None) -> Faults:
    """What the contract finds wrong; a field is where the pointer leads, unless `places` say otherwise."""
    found: Faults = {}
    for fault in faults_of(error, given):
        first = fault.pointer.split("/")[1] if fault.pointer else GENERAL
        name = first if places is None else named(fault.pointer, places)
        found.setdefault(name, _sentence(fault.message if name else fault.sentence))
    return found


def of_problem(problem: Problem, field: str = GENERAL, places: Sequence[tuple[str, str]] = ()) -> Faults:
    """What an endpoint of the API would have answered; about `field` unless `places` say otherwise."""
    extras = problem.extras or {}
    hint = extras.get("hint", "")
    listed = [fault for fault in extras.get("problems", ()) if fault["pointer"]] if places else []
    if listed:
        return {named(fault["pointer"], places): _sentence(_bare(fault)) for fault in reversed(listed)}
    return {field: " ".join(_sentence(part) for part in (str(problem.detail), hint) if part)}


def _bare(fault: Mapping[str, str]) -> str:
    """The message without the name of what it is about: it stands at the field."""
    return fault["message"].removeprefix(fault["pointer"].lstrip("/").replace("/", ".") + ": ")


def _sentence(message: str) -> str:
    plainer = next((words for beginning, words in _PLAINER if message.startswith(beginning)), message)
    said = plainer[:1].upper() + plainer[1:]
    return said if said.endswith((".", "!", "?")) else f"{said}."

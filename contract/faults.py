"""What is wrong with a value, in words for whoever wrote it: what was given, and what may stand there."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sparring.contract import fields, refs, resources

_LONGEST = 80
"""Characters of what was given that are told back."""
_FORMS = {
    refs.REF: "an id (mdl_… or dat_… with 20 letters and digits) or a sha256",
    refs.JOB_REF: "the id of a job (job_… with 20 letters and digits)",
    fields.SHA256: "a sha256: 64 digits in hexadecimal",
    fields.IDENT: "a letter or digit, then letters, digits and _ . -, at most 64 characters",
    resources.NAME: "letters, digits, space and . _ + -, at most 100 characters",
}
"""What must match a pattern, by the pattern."""
_OBJECT = 'must be an object, {"…": …}'


def plainly(fault: Mapping[str, Any]) -> str:
    """The message of one of pydantic's faults (an item of `ValidationError.errors()`), to stand after the name of the place."""
    said = _SAID.get(fault["type"])
    message = said(fault.get("ctx", {})) if said else _reworded(str(fault["msg"]))
    given = fault.get("input")
    secret = _SECRET.intersection(fault["loc"])
    told = fault["type"] not in _WHOLE and not secret and (given is None or isinstance(given, (str, int, float)))
    return f"{message} (given {_shown(given)})" if told else message


def _reworded(message: str) -> str:
    plain = message.removeprefix("Value error, ")
    return re.sub(r"^(Input|String|List|Tuple|Set|Frozenset) should", "must", plain)


def _shown(given: object) -> str:
    text = repr(given) if isinstance(given, str) else json.dumps(given)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _kind(told: Mapping[str, Any]) -> str:
    known = str(told["expected_tags"]).replace("'", "")
    return f"there is no {str(told['tag'])[:_LONGEST]!r}: give one of {known}"


def _form(told: Mapping[str, Any]) -> str:
    return f"must be {_FORMS[told['pattern']]}" if told["pattern"] in _FORMS else f"must match {told['pattern']}"


_SAID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda _: "there is no such word here: look at its spelling, or leave it out",
    "union_tag_invalid": _kind,
    "string_pattern_mismatch": _form,
    "literal_error": lambda told: f"must be {told['expected']}",
    "int_parsing": lambda _: "must be a whole number",
    "int_type": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "float_parsing": lambda _: "must be a number",
    "float_type": lambda _: "must be a number",
    "bool_parsing": lambda _: "must be true or false",
    "string_type": lambda _: "must be a text",
    "list_type": lambda _: "must be a list",
    "model_type": lambda _: _OBJECT,
    "dict_type": lambda _: _OBJECT,
    "model_attributes_type": lambda _: _OBJECT,
}
_WHOLE = frozenset({"missing", "extra_forbidden", "union_tag_invalid", "json_invalid", "value_error"})
"""Faults whose message says all there is to say."""
_SECRET = frozenset({"url", "headers", "secret"})
"""Where credentials may stand, which nobody's log should hold."""

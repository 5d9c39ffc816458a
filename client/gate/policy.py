"""A policy read from YAML, with the line of everything in it; every fault is told with its line."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sparring.contract.gate import Policy
from sparring.errors import UsageProblem
from sparring.paths import check_readable

LARGEST = 1 << 20
"""Bytes a policy may have."""
DEEPEST = 20
_MOST = 20
"""Faults told at once."""
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp"))


class _Fault(Exception):
    """What YAML allows and a policy does not."""

    def __init__(self, node: yaml.Node | yaml.Event, what: str) -> None:
        super().__init__(what)
        self.line, self.what = _at(node) + 1, what


class Read(NamedTuple):
    """A policy and where it stands."""

    policy: Policy
    path: Path
    sha256: str
    node: yaml.Node

    @property
    def folder(self) -> Path:
        """What the paths in it are relative to."""
        return self.path.parent

    def line(self, *place: str | int) -> int:
        """The line of the innermost part of `place` that is there: `line("rules", 0, "min")`."""
        return _line(self.node, place)


def read(path: Path) -> Read:
    """The policy at `path`.

    Raises:
        UsageProblem: it cannot be read, or is no policy: every fault on a line of its own, led by file and line.
    """
    check_readable(path)
    content = path.read_bytes()
    if len(content) > LARGEST:
        raise UsageProblem(f"{path} has {len(content):,} bytes; a policy has at most {LARGEST:,}")
    try:
        node = _node(content.decode("utf-8-sig"))
        if node is None:
            raise UsageProblem(f"{path} holds nothing but comments")
        given = _plain(node)
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} is no UTF-8 text (byte {error.start})", "Save it as UTF-8") from error
    except _Fault as error:
        raise UsageProblem(f"{path}:{error.line}: {error.what}") from error
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        raise UsageProblem(f"{path}:{at.line + 1 if at else 1}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageProblem(f"{path}: {' '.join(str(error).split())}") from error
    try:
        policy = Policy.model_validate(given)
    except ValidationError as error:
        faults = [f"{path}:{line}: {said}" for line, said in _faults(node, error)]
        more = [f"and {len(faults) - _MOST} more"] if len(faults) > _MOST else []
        raise UsageProblem("\n".join(faults[:_MOST] + more), "docs/gate.md has every word of a policy") from None
    return Read(policy, path, hashlib.sha256(content).hexdigest(), node)


def _at(node: yaml.Node | yaml.Event) -> int:
    """Its line, from 0."""
    return node.start_mark.line if node.start_mark else 0


def _node(text: str) -> yaml.Node | None:
    """The one document of a text, if it has any. What could grow without end, or say one thing in two places, is refused."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _Fault(event, "anchors and aliases are not read: write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _Fault(event, f"this is nested more than {DEEPEST} deep")
    node = yaml.compose(text, yaml.SafeLoader)
    return node


def _plain(node: yaml.Node) -> Any:
    """A node as Python has it; _Fault for keys that are given twice and types that JSON does not know."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Fault(key, "a key must be a word")
            if key.value in found:
                raise _Fault(key, f"{key.value!r} is given twice")
            found[key.value] = _plain(value)
        return found
    if node.tag not in _TAGS:
        raise _Fault(node, f"{node.tag} is not read here")
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        raise _Fault(node, str(error)) from error


def _line(node: yaml.Node, place: Sequence[str | int]) -> int:
    line = _at(node) + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if found:
                line, node = _at(found[0][0]) + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _at(node) + 1
    return line


def _faults(node: yaml.Node, error: ValidationError) -> Iterator[tuple[int, str]]:
    """Line and words of each fault. Checks across the policy name the place at the head of their message."""
    for fault in error.errors():
        said = _said(fault)
        place: list[str | int] = [part for part in fault["loc"] if part != "[key]"]
        named = re.match(r"([a-z_]+(?:\.\w+)*): ", said)
        if not place and named:
            place, said = [int(part) if part.isdigit() else part for part in named[1].split(".")], said[named.end() :]
        yield _line(node, place), f"{_written(node, place)}{said}"


def _said(fault: ErrorDetails) -> str:
    told = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            return "there is no such word here"
        case "missing":
            return "is missing"
        case "union_tag_invalid":
            return f"there is no {told['tag']!r}: give one of {told['expected_tags']}"
        case "string_pattern_mismatch":
            return f"{fault['input']!r} is not of the form {told['pattern']}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a mapping: words, each with a colon and what it is"
    return fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _written(node: yaml.Node, place: Sequence[str | int]) -> str:
    """The place as a user would write it, without the names of kinds that a union adds: `rules.0.min: `."""
    parts: list[str] = []
    for at, part in enumerate(place):
        if isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if key.value == part), None)
            if found is not None:
                node = found
            elif at + 1 < len(place):
                continue
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif at + 1 < len(place):
            continue
        parts.append(str(part))
    return f"{'.'.join(parts)}: " if parts else ""

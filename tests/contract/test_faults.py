"""Faults in words: of whatever is wrong with a job, the place, what was given and what may stand there."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from sparring.contract.endpoints import AnyEndpoint
from sparring.contract.faults import plainly
from sparring.contract.fields import Ident, Sha256
from sparring.contract.refs import JobRef, Ref
from sparring.contract.resources import Name


def faults(kind: Any, given: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(given)
    return [plainly(fault) for fault in caught.value.errors()]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Ref, "an id (mdl_… or dat_…"),
        (JobRef, "the id of a job (job_…"),
        (Sha256, "a sha256: 64 digits"),
        (Ident, "a letter or digit, then"),
        (Name, "letters, digits, space and"),
    ],
)
def test_a_pattern_is_told_in_words(kind: Any, said: str) -> None:
    (fault,) = faults(kind, "<b>")
    assert fault.startswith(f"must be {said}")
    assert fault.endswith("(given '<b>')")


class Sample(BaseModel, extra="forbid"):
    count: int = 0
    share: float = 0.5
    on: bool = False
    many: list[int] = []
    inner: "Sample | None" = None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": "few"}, "must be a whole number (given 'few')"),
        ({"count": None}, "must be a whole number (given null)"),
        ({"share": "half"}, "must be a number (given 'half')"),
        ({"on": "perhaps"}, "must be true or false (given 'perhaps')"),
        ({"many": 3}, "must be a list (given 3)"),
        ({"many": {}}, "must be a list"),
        ({"inner": True}, 'must be an object, {"…": …} (given true)'),
        ({"other": 1}, "there is no such word here: look at its spelling, or leave it out"),
    ],
)
def test_what_was_given_stands_beside_what_may_be(given: Any, said: str) -> None:
    assert faults(Sample, given) == [said]


def test_nothing_unseen_and_nothing_long_is_told_back() -> None:
    (fault,) = faults(Ident, "\u202e\0" + "x" * 10_000)
    assert "\\u202e\\x00" in fault
    assert len(fault) < 250
    assert not re.search("[\u202e\0]", fault)


@pytest.mark.parametrize(
    "given",
    [
        {"gives": "scores", "url": "https://bob:hunter2@example.org/x"},
        {"gives": "scores", "url": "https://example.org/x?api_key=hunter2"},
        {"gives": "scores", "url": "https://example.org/x", "headers": {"Authorization": "Bearer hunter2\n"}},
    ],
)
def test_credentials_are_not_told_back(given: dict[str, Any]) -> None:
    told = faults(AnyEndpoint, {"kind": "json", **given})
    assert told
    assert "hunter2" not in " ".join(told)

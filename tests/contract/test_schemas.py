import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from sparring.contract.gate import Policy
from sparring.contract.jobs import JOB
from sparring.contract.retrained import REPORT
from sparring.contract.verdict import Verdict
from tests.reports import factory, verdicts

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
MODELS: dict[str, TypeAdapter[Any]] = {
    "job": JOB,
    "report": REPORT,
    "gate": TypeAdapter(Policy),
    "verdict": TypeAdapter(Verdict),
}
JOBS = (
    {"kind": "evaluate", "model": "a" * 64, "data": "b" * 64, "threats": [{"norm": "linf", "eps": " 8 / 255"}]},
    {"kind": "craft", "model": "a" * 64, "data": "b" * 64, "threat": {"norm": "l2", "eps": 0.5}, "attack": {"kind": "pgd", "alpha": 0.1}},
)
WRONG = (
    ("threats", []),
    ("threats", [{"norm": "l7", "eps": 1}]),
    ("threats", [{"norm": "linf", "eps": -1}]),
    ("threats", [{"norm": "linf", "eps": True}]),
    ("threats", [{"norm": "linf", "eps": 1e31}]),
    ("threats", [{"norm": "linf", "eps": "x"}]),
    ("threats", [{"norm": "linf", "eps": "1" * 41}]),
    ("attacks", [{"kind": "nuke"}]),
    ("attacks", [{"kind": "pgd", "alpha": 0}]),
    ("attacks", [{"kind": "pgd", "steps": True}]),
    ("knowledge", []),
    ("rows", 0),
    ("rows", True),
    ("seed", 2**63),
    ("precision", "half"),
    ("colour", "red"),
)


@cache
def schema(name: str) -> Draft202012Validator:
    written = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(written)
    return Draft202012Validator(written)


@pytest.mark.parametrize("name", MODELS)
def test_the_schemas_in_the_docs_are_those_of_the_models(name: str) -> None:
    assert schema(name).schema == MODELS[name].json_schema(), "run `make docs`"


def test_a_report_is_valid_and_a_changed_one_is_not() -> None:
    written = json.loads(factory.report(warnings=(factory.warning(),)).model_dump_json())
    schema("report").validate(written)
    for part, field, wrong in (("clean", "count", -1), ("clean", "rate", 0.9), ("model", "sha256", "x"), ("cost", "queries", "many")):
        changed = copy.deepcopy(written)
        changed[part][field] = wrong
        assert not schema("report").is_valid(changed)


def test_a_verdict_is_valid_and_a_changed_one_is_not() -> None:
    written = json.loads(verdicts.verdict().model_dump_json())
    schema("verdict").validate(written)
    assert not schema("verdict").is_valid(written | {"exit_code": 4})


def test_a_policy_is_valid_and_a_changed_one_is_not() -> None:
    rule = {"id": "a", "metric": "robust", "threat": "near", "min": 0.4}
    policy = {
        "version": 1,
        "model": {"path": "m"},
        "data": {"path": "d"},
        "threats": {"near": {"norm": "linf", "eps": 0.1}},
        "rules": [rule],
    }
    schema("gate").validate(policy)
    for wrong in ({"version": 2}, {"rules": []}, {"rules": [rule | {"metric": "nice"}]}, {"rules": [rule | {"mim": 1}]}, {"threats": {}}):
        assert not schema("gate").is_valid(policy | wrong)


@pytest.mark.parametrize("job", JOBS, ids=["evaluate", "craft"])
def test_a_job_is_valid_as_a_user_and_as_we_write_it(job: dict[str, Any]) -> None:
    schema("job").validate(job)
    schema("job").validate(json.loads(JOB.dump_json(JOB.validate_python(job))))


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda part: json.dumps(part)[:40])
def test_schema_and_model_refuse_the_same(field: str, value: object) -> None:
    job = JOBS[0] | {field: value}
    assert not schema("job").is_valid(job)
    with pytest.raises(ValueError, match="validation error"):
        JOB.validate_python(job)

import json
from pathlib import Path

import pytest

from sparring.service.app import create_app
from sparring.service.openapi import SCHEMAS

from .conftest import Served, settings_in

DOCS = Path(__file__).parents[2] / "docs"


def test_the_description_in_the_docs_is_the_one_served(shared: Served, tmp_path: Path) -> None:
    written = json.loads((DOCS / "openapi.json").read_text())
    assert written == json.loads(json.dumps(create_app(settings_in(tmp_path)).openapi())), (
        "run `python -P -m sparring.service.openapi > docs/openapi.json`"
    )
    assert shared.http.get("/openapi.json").json() == written


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_in_the_docs_are_those_of_the_contract(name: str) -> None:
    written = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text())
    hint = f"run `python -P -m sparring.service.openapi --schema {name} > docs/schemas/{name}.schema.json`"
    assert written == SCHEMAS[name].json_schema(), hint


def test_every_operation_has_a_name_a_tag_and_words(tmp_path: Path) -> None:
    app = create_app(settings_in(tmp_path))
    names = []
    for path, operations in app.openapi()["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert operation["tags"], path
            assert operation["summary"] != operation["operationId"].replace("_", " ").title(), path
            assert operation["description"], path
            assert {"4XX", "5XX"} <= set(operation["responses"]), path
    assert len(names) == len(set(names))
    assert "submit_job" in names

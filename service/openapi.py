"""The API described: `python -P -m sparring.service.openapi` writes OpenAPI; with `--schema NAME` a JSON Schema of the contract."""

import argparse
import json
import sys
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field, TypeAdapter

from sparring.contract.endpoints import ENDPOINT
from sparring.contract.gate import Policy
from sparring.contract.jobs import JOB
from sparring.contract.retrained import REPORT
from sparring.contract.verdict import Verdict
from sparring.service import problems

SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "report": REPORT,
    "job": JOB,
    "gate": TypeAdapter(Policy),
    "verdict": TypeAdapter(Verdict),
}


class FaultShape(BaseModel):
    """One thing that is wrong with a request."""

    where: str
    """`body`, `query`, `path` or `header`."""
    pointer: str
    """JSON pointer into that part; empty for the whole of it."""
    message: str


class ProblemShape(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=[problems.PREFIX + "not-found"])
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    problems: list[FaultShape] = []


def describe(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document, in which every operation may answer with problem details."""
    described = FastAPI.openapi(app)
    shapes = described["components"]["schemas"]
    shapes.pop("HTTPValidationError", None)
    shapes.pop("ValidationError", None)
    schema = ProblemShape.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes |= ENDPOINT.json_schema(ref_template="#/components/schemas/{model}")["$defs"]
    shapes |= {"FaultShape": schema["$defs"]["FaultShape"], "ProblemShape": {k: v for k, v in schema.items() if k != "$defs"}}
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemShape"}}}
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            stream = operation["responses"].get("200", {}).get("content", {}).get("text/event-stream", {})
            if stream.pop("itemSchema", None):  # a word of OpenAPI 3.2, in a document of 3.1
                stream["schema"] = {"type": "string"}
            operation["responses"] |= {
                "4XX": {"description": "The caller's fault, and which", "content": content},
                "5XX": {"description": "The server's fault", "content": content},
            }
    return described


def install(app: FastAPI) -> None:
    """Serves that document at /openapi.json."""
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # the way FastAPI's manual gives


def main() -> None:
    """Writes the API's description, or a schema of the contract."""
    from sparring.service.app import create_app
    from sparring.storage.settings import Settings

    parser = argparse.ArgumentParser(prog="sparring.service.openapi", description="Describe the HTTP API.")
    parser.add_argument("--schema", choices=SCHEMAS, help="a JSON Schema of the contract instead")
    wanted = parser.parse_args().schema
    document = SCHEMAS[wanted].json_schema() if wanted else create_app(Settings(anonymous=False)).openapi()
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, sort_keys=bool(wanted))
    print()


if __name__ == "__main__":
    main()

"""Endpoints: models that are registered by how they are asked, as JSON, in place of an upload."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool

from sparring.contract.endpoints import ENDPOINT
from sparring.contract.specs import ModelSpec
from sparring.service.context import MAX_BODY, Context
from sparring.service.problems import Fault, invalid, problem
from sparring.storage import grants
from sparring.storage.artifacts import Blob


def is_json(request: Request) -> bool:
    """Whether the body says that it is JSON, and so no file."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def or_json(described: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's words for a body that may be an endpoint as well."""
    schema = ENDPOINT.json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs")
    described["requestBody"]["content"]["application/json"] = {"schema": schema}
    return described


async def accept(request: Request, context: Context, project: str, spec: ModelSpec, sha256: str | None) -> tuple[Blob, ModelSpec]:
    """Stores an endpoint, as JSON of one spelling; returns with it what is declared about the model, the endpoint now included.

    Raises 400, 413 or 422, also where the project may not have it asked; nothing is stored then.
    """
    given = await _body(request)
    try:
        endpoint = ENDPOINT.validate_python(given)
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()], body=given) from None
    if spec.arch is not None:
        raise invalid(Fault("query", "/arch", "an endpoint has no architecture: leave it out"))
    if endpoint.access == "decision" and spec.classes is None:
        raise invalid(Fault("query", "/classes", "say how many classes there are: an endpoint that gives labels does not tell"))
    await run_in_threadpool(grants.check, context.settings.grants, project, endpoint)
    blob = await run_in_threadpool(context.folder.put, [endpoint.model_dump_json().encode()], sha256=sha256)
    return blob, spec.model_copy(update={"endpoint": endpoint})


async def _body(request: Request) -> Any:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise problem(413, "too-large", f"What describes an endpoint is not longer than {MAX_BODY} bytes")
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise problem(400, "malformed-json", f"The body is not JSON: {error}") from None

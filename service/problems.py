"""What a caller did wrong, told as RFC 9457 problem details: a stable `type`, a sentence, and every fault by JSON pointer."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_problem.error import Problem
from fastapi_problem.handler import ExceptionHandler
from pydantic import ValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match

from sparring.contract.faults import plainly
from sparring.storage import database, errors

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
LONGEST = 500
"""Characters of a message at most: what was sent may be told back, and may be long."""
MOST = 100
"""Faults that are listed at most."""
PREFIX = "urn:sparring:problem:"

_ATTACKS, _DEFENSES = ("/v1/attacks", "the attacks with their settings"), ("/v1/defenses", "the defenses with their settings")
_DATASETS, _JOBS = ("/v1/datasets", "the datasets there are"), ("/v1/jobs", "the jobs there are")
_LISTS = {
    **{"attacks": _ATTACKS, "attack": _ATTACKS, "defenses": _DEFENSES, "suite": ("/v1/suites", "the suites")},
    **{"model": ("/v1/models", "the models there are"), "data": _DATASETS, "unlabelled": _DATASETS, "training": _DATASETS, "replay": _JOBS},
}
"""Where what may stand in a field of a job can be looked up."""

Handler = Callable[[ExceptionHandler, Request, Any], Problem]

log = structlog.get_logger("sparring.service")


class Fault(NamedTuple):
    """One thing that is wrong with a request."""

    where: str
    """`body`, `query`, `path` or `header`."""
    pointer: str
    """JSON pointer (RFC 6901) into that part; empty for the whole of it."""
    message: str

    @property
    def sentence(self) -> str:
        """The message, led by the name of what it is about."""
        name = self.pointer.lstrip("/").replace("/", ".").replace("~1", "/").replace("~0", "~")
        return f"{name}: {self.message}" if name else self.message


def problem(
    status: int, code: str, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None, faults: Sequence[Fault] = ()
) -> Problem:
    """A problem to raise: `code` becomes its stable type, `detail` says what was wrong, `hint` what to do about it."""
    extras: dict[str, Any] = {"hint": hint} if hint else {}
    if faults:
        extras["problems"] = [{"where": f.where, "pointer": f.pointer, "message": f.sentence} for f in faults]
    title = code.replace("-", " ").replace("_", " ").capitalize()
    return Problem(title, type_=PREFIX + code, detail=detail, status=status, headers=dict(headers or {}), **extras)


def invalid(*faults: Fault, code: str = "invalid-request", hint: str = "") -> Problem:
    """422 that lists the faults; the first one is the detail."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return problem(422, code, faults[0].sentence + more, hint=hint, faults=faults)


def _hint(fault: Fault) -> str:
    """What to do about it: where to look up what may stand there."""
    first = fault.pointer.split("/")[1] if fault.pointer else ""
    known = _LISTS.get(first) if fault.where == "body" else None
    return f"GET {known[0]} lists {known[1]}" if known else "GET /openapi.json describes every field"


def _child(node: Any, part: int | str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        return None


def _pointer(path: Sequence[int | str], body: Any) -> str:
    """The pointer of a pydantic location: tags of unions are left out, and what lies below a scalar."""
    parts: list[str] = []
    node, tagged = body, False
    for part in path:
        if isinstance(node, Mapping) and node.get("kind") == part and not tagged:
            tagged = True
            continue
        if not isinstance(node, (Mapping, list)) or (isinstance(node, list) and not isinstance(part, int)):
            break
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
        node, tagged = _child(node, part), False
    return "".join(f"/{part}" for part in parts)


def _fault(error: Mapping[str, Any], body: Any) -> Fault:
    where, *path = error["loc"] or ("body",)
    message = plainly(error)[:LONGEST]
    if where != "body":
        return Fault(where, "".join(f"/{part}" for part in path[:1]), message)
    pointer = _pointer(path, body)
    named = re.match(r"([a-z_]+)(?:\.(\d+))?: ", message)
    if not pointer and named and isinstance(body, Mapping) and named[1] in body:
        pointer = "".join(f"/{part}" for part in named.groups() if part)
        message = message[named.end() :]
    return Fault(where, pointer, message)


def _without_echoes(errors: Sequence[Any]) -> list[Any]:
    """Leaves out that a list is too short where that is only because its items are wrong."""
    places = [error["loc"] for error in errors]
    return [e for e in errors if e["type"] != "too_short" or not any(p[: len(e["loc"])] == e["loc"] for p in places if p != e["loc"])]


def faults_of(error: ValidationError, body: Any) -> tuple[Fault, ...]:
    """What the contract found wrong with a body."""
    told = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)[:MOST]]
    return tuple(_fault(fault, body) for fault in _without_echoes(told))


def _validation(_: ExceptionHandler, request: Request, error: RequestValidationError) -> Problem:
    faults = _without_echoes(error.errors()[:MOST])
    if any(fault["loc"][:1] == ("path",) for fault in faults):
        return problem(404, "not-found", f"There is no {request.url.path}")
    if faults[0]["type"] == "json_invalid":
        at = faults[0]["loc"][1]
        return problem(400, "malformed-json", f"The body is not JSON: {faults[0]['ctx']['error']} at character {at}")
    if isinstance(error.body, bytes):
        given = request.headers.get("content-type", "no content type")
        return problem(
            415, "unsupported-media-type", f"The body must be JSON, but it came as {given}", hint="Send Content-Type: application/json"
        )
    told = [_fault(fault, error.body) for fault in faults]
    return invalid(*told, hint=_hint(told[0]))


def from_status(status: int, detail: str, request: Request, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for an answer that a library gave as a bare status."""
    if status == 400 and detail == "There was an error parsing the body":
        return problem(
            400, "malformed-json", "The body is not JSON: it is not UTF-8, nested too deeply, or holds a number that is too long"
        )
    if status == 404:
        detail = f"There is no {request.url.path}"
    elif status == 405:
        detail = f"{request.url.path} does not know {request.method}"
    elif status == 413:
        detail = "The body is larger than this address takes"
    phrase = HTTPStatus(status).phrase
    code = {404: "not-found", 413: "too-large", 416: "range-not-satisfiable"}.get(status) or re.sub(r"[^a-z]+", "-", phrase.lower())
    hint = "GET /openapi.json tells what there is; the README shows how it is used" if status == 404 else ""
    return problem(status, code, detail or phrase, hint=hint, headers=headers)


def _allowed(request: Request) -> str:
    """Every method the path knows; the router itself names those of one route."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return ", ".join(m for m, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes))


def _http(_: ExceptionHandler, request: Request, error: HTTPException) -> Problem:
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return from_status(error.status_code, error.detail, request, headers)


def _database(_: ExceptionHandler, request: Request, error: SQLAlchemyError) -> Problem:
    why = str(getattr(error, "orig", error))
    log.error("records unavailable", path=request.url.path, error=why)
    if "disk is full" in why:
        return _full(_, request, error)
    return problem(
        503, "database-unavailable", "The records cannot be reached just now", hint="Try again shortly", headers={"Retry-After": "2"}
    )


def _full(_: ExceptionHandler, request: Request, error: Exception) -> Problem:
    log.error("disk full", path=request.url.path)
    return problem(
        507, "disk-full", "The server's disk is full; nothing was stored", hint="Delete what is no longer needed, then try again"
    )


def _cursor(_handler: ExceptionHandler, _request: Request, error: errors.BadCursor) -> Problem:
    return invalid(Fault("query", "/cursor", str(error)))


def _unstorable(_handler: ExceptionHandler, _request: Request, _error: DataError) -> Problem:
    return problem(422, "invalid-request", "The request holds a character that the records cannot hold, such as NUL")


def _internal(_: ExceptionHandler, request: Request, error: Exception) -> Problem:
    request_id = request.scope.get("request_id", "")
    log.error("unhandled error", path=request.url.path, request_id=request_id, exc_info=error)
    return problem(500, "internal", f"This is a fault of the server. Its log tells more under request id {request_id}")


def _told(status: int, code: str) -> Handler:
    return lambda _handler, _request, error: problem(status, code, str(error))


HANDLERS: dict[type[Exception], Handler] = {
    Problem: lambda _handler, _request, error: error,
    RequestValidationError: _validation,
    HTTPException: _http,
    ClientDisconnect: _told(400, "aborted"),
    errors.Missing: _told(404, "not-found"),
    errors.InUse: _told(409, "in-use"),
    errors.NotFinal: _told(409, "not-final"),
    errors.AlreadyFinal: _told(409, "already-final"),
    errors.Taken: _told(409, "taken"),
    errors.TooMany: _told(409, "too-many"),
    errors.Unfit: lambda _handler, _request, error: invalid(Fault("body", error.pointer, error.why), code="unfit"),
    errors.Forbidden: lambda _handler, _request, error: problem(422, "target_forbidden", error.message, hint=error.hint),
    errors.KeyReused: _told(422, "idempotency-key-reused"),
    errors.TooLarge: _told(413, "too-large"),
    errors.DigestMismatch: _told(422, "digest-mismatch"),
    errors.BadCursor: _cursor,
    errors.Corrupt: _told(500, "artifact-corrupt"),
    errors.Full: _full,
    **dict.fromkeys(database.Unreachable, _database),
    DataError: _unstorable,
    Exception: _internal,
}
"""What each exception tells the caller, the special before the general."""

render = ExceptionHandler(handlers=HANDLERS)
"""Makes the answer to a request of the exception that it ended in."""


def install(app: FastAPI) -> None:
    """Lets every error that was foreseen end as problem details; for the others there is the middleware."""
    for kind in HANDLERS:
        if kind is not Exception:
            app.add_exception_handler(kind, render)

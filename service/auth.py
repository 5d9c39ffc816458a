"""Who is asking: a Bearer key belongs to one project. Without keys only a server on loopback answers."""

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sparring.service.context import Ctx
from sparring.service.problems import problem
from sparring.storage import keys
from sparring.storage.settings import Settings
from sparring.storage.tables import DEFAULT_PROJECT

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `Authorization: Bearer svc_…`")


WHERE = "`sparring up` prints its key, and keeps it in stack.json of its data folder; `sparring keys create NAME` makes another"


class UnsafeSettings(ValueError):
    """The settings would open the server to strangers."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(settings: Settings) -> None:
    """Raises UnsafeSettings where callers without a key could come from another machine."""
    if settings.anonymous and not is_loopback(settings.host):
        raise UnsafeSettings(
            f"SPARRING_ANONYMOUS lets anyone in, so it needs a loopback address, but the server would listen on {settings.host}. "
            "Unset SPARRING_ANONYMOUS and use keys, or set SPARRING_HOST=127.0.0.1."
        )


def unauthorized(detail: str, hint: str) -> Exception:
    """401 with what to do about it."""
    return problem(401, "unauthorized", detail, hint=hint, headers={"WWW-Authenticate": "Bearer"})


def same_origin(request: Request) -> bool:
    """Whether no page of another site made the browser send this."""
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _project(request: Request, context: Ctx, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """The project of the caller.

    Raises 401 for a missing, unknown or expired key; 403 for a page of another origin that calls a server without keys.
    """
    if given is not None:
        found = keys.verify(context.engine, given.credentials)
        if found is None:
            raise unauthorized("The API key is unknown, revoked or expired", WHERE)
        return found.project
    if not context.settings.anonymous:
        raise unauthorized("This needs an API key", f"Send Authorization: Bearer <key>. {WHERE}")
    if not same_origin(request):
        raise problem(403, "foreign-origin", f"A page of {request.headers['origin']} may not call a server that asks for no key")
    return DEFAULT_PROJECT


required = Depends(_project)
"""For a router whose every endpoint needs a known caller."""

Project = Annotated[str, Depends(_project)]
"""Parameter type of an endpoint that acts for a project."""

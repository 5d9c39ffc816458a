"""What wraps every request: an id, one line of log, and problem details even where a library answers in plain text."""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparring.service.problems import from_status, render

log = structlog.get_logger("sparring.service")

_REQUEST_ID = re.compile(r"[\w.\-]{1,64}")
_QUIET = {"/healthz", "/readyz", "/metrics"}


class RequestLog:
    """Gives each request an id (the caller's `X-Request-Id` if it is a plain one), logs its end, and answers 500 where nobody else did.

    Query and headers stay out of the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope["request_id"] = request_id
        began, status = time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_marked)
            except Exception as error:
                if status:
                    raise
                answer = render(Request(scope, receive), error)
                await answer(scope, receive, send_marked)
            finally:
                if scope["path"] not in _QUIET:
                    seconds = round(time.monotonic() - began, 4)
                    log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=seconds)


def _is_text(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/plain")


class PlainErrors:
    """Turns an error that came as plain text (a body over a route's limit, a range no file has, a strange host) into problem details."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        plain: Message | None = None
        text = b""

        async def send_problem(message: Message) -> None:
            nonlocal plain, text
            if message["type"] == "http.response.start" and message["status"] >= 400 and _is_text(message):
                plain = message
                return
            if plain is None:
                return await send(message)
            text += message.get("body", b"")
            if not message.get("more_body"):
                kept = {k: v for k, v in Headers(raw=plain["headers"]).items() if not k.startswith("content-") or k == "content-range"}
                request = Request(scope, receive)
                answer = render(request, from_status(plain["status"], text.decode(errors="replace"), request, kept))
                await answer(scope, receive, send)

        await self.app(scope, receive, send_problem)

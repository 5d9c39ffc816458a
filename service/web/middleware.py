"""What wraps every page: headers that let nothing run but our own scripts, and errors told as pages."""

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sparring.service.problems import MEDIA_TYPE
from sparring.service.web.view import render

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every page; an answer that has such a header of its own keeps it."""
LONGEST = 2000
"""Characters of an address that a login leads back to."""
_FOREVER = "public, max-age=31536000, immutable"
_KEPT = ("allow", "retry-after", "x-request-id")


class Pages:
    """Adds the headers of a page, and turns problem details into one; without a key it leads to the login.

    Args:
        app: what is wrapped.
        pages: first parts of the paths that are pages.
        api: first parts of those that never are; at any other path a caller who wants HTML gets it.
    """

    def __init__(self, app: ASGIApp, pages: Collection[str], api: Collection[str]) -> None:
        self.app, self._pages, self._api = app, pages, api

    def _is_page(self, scope: Scope) -> bool:
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        return first in self._pages or (first not in self._api and "text/html" in Headers(scope=scope).get("accept", ""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or not self._is_page(scope):
            return await self.app(scope, receive, send)
        failed: Message | None = None
        body = b""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                # The address of a file of ours holds its digest.
                headers.setdefault(
                    "Cache-Control", _FOREVER if scope["path"].startswith("/static/") and message["status"] < 400 else "no-store"
                )
            await send(message)

        async def send_page(message: Message) -> None:
            nonlocal failed, body
            if message["type"] == "http.response.start" and Headers(raw=message["headers"]).get("content-type", "").startswith(MEDIA_TYPE):
                failed = message
                return
            if failed is None:
                return await send_marked(message)
            body += message.get("body", b"")
            if not message.get("more_body"):
                answer = _told(Request(scope), failed, json.loads(body or b"{}"))
                await answer(scope, receive, send_marked)

        await self.app(scope, receive, send_page)


def _told(request: Request, start: Message, problem: dict[str, Any]) -> Response:
    status = start["status"]
    kept = {name: value for name, value in Headers(raw=start["headers"]).items() if name in _KEPT}
    if "hx-request" in request.headers:
        # Part of a page cannot be shown any more: the whole of it says why.
        return Response(status_code=status, headers={**kept, **({"HX-Refresh": "true"} if status < 500 else {})})
    if status == 401:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        place = {"next": wanted} if request.method == "GET" and wanted != "/" and len(wanted) <= LONGEST else {}
        return RedirectResponse(f"/login?{urlencode(place)}" if place else "/login", 303)
    return HTMLResponse(render("error", here="", token="", key=None, member=True, problem=problem), status, kept)

"""What every page is given: who looks at it, and how it is rendered."""

from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import sparring
from sparring.contract.quantity import as_written
from sparring.contract.resources import KeyInfo
from sparring.reports import text
from sparring.service import auth
from sparring.service.context import Context, Ctx
from sparring.service.problems import problem
from sparring.service.sessions import LASTS
from sparring.service.web.names import STATES
from sparring.storage import keys
from sparring.storage.tables import DEFAULT_PROJECT

HERE = Path(__file__).parent
STATIC = HERE / "static"
NAVIGATION = (
    *(("/", "Overview"), ("/models", "Models"), ("/datasets", "Datasets"), ("/jobs", "Jobs"), ("/compare", "Compare"), ("/gates", "Gates")),
    *(("/workers", "Workers"), ("/settings", "Settings")),
)
_SAID = ("rate", "interval", "percent", "number", "fraction", "figure", "duration", "size", "threat_text", "trust_text", "proved_text")


def _unseen_shown(value: object) -> object:
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _moment(when: datetime) -> Markup:
    """A time, to be read by people and by machines."""
    return Markup('<time datetime="{}">{}</time>').format(when.isoformat(timespec="seconds"), when.strftime("%Y-%m-%d %H:%M:%S"))


@cache
def asset(name: str) -> str:
    """The address of a file of ours; it changes with the file."""
    return f"/static/{name}?v={sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=_unseen_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {name: getattr(text, name) for name in _SAID}
    pages.filters |= {"moment": _moment, "as_written": as_written, "path": lambda part: quote(str(part), safe="")}
    pages.globals |= {"navigation": NAVIGATION, "version": sparring.__version__, "asset": asset, "STATES": STATES}
    return pages


def render(template: str, **values: Any) -> str:
    """A template of the pages, filled in."""
    return _environment().get_template(f"{template}.html.j2").render(**values)


class Guest:
    """Whoever asks for a page, known or not."""

    def __init__(self, request: Request, context: Ctx) -> None:
        self.request = request
        self.context: Context = context
        sessions = context.sessions
        known = sessions.open(request.cookies.get(sessions.cookie, ""))
        self.session = known or sessions.begin()
        self.token = sessions.token(self.session)
        self._fresh = known is None
        self.key: KeyInfo | None = None
        self.member: str | None = DEFAULT_PROJECT if context.settings.anonymous else None
        """The project the visitor may see, if any."""
        if self.session.key and (holder := keys.held(context.engine, self.session.key)):
            self.key, self.member = holder.key, holder.project

    def check(self, token: str) -> None:
        """Raises 403 unless a form came from a page that this session was given."""
        if token != self.token or not auth.same_origin(self.request):
            hint = "Go back, load the page again, and send the form once more; cookies must be allowed"
            raise problem(403, "stale-form", "The form was not made for this session, or it is too old", hint=hint)

    def show(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The page of a template; `values` fill it in."""
        common = {"here": self.request.url.path, "token": self.token, "key": self.key, "member": self.member is not None}
        response = HTMLResponse(render(template, **common, **values), status)
        if self._fresh:
            self._keep(response, self.context.sessions.seal(self.session))
        return response

    def go(self, place: str, **query: str) -> RedirectResponse:
        """Sends the browser to another page, after a form."""
        return RedirectResponse(f"{place}?{urlencode(query)}" if query else place, 303)

    def enter(self, key: str, place: str) -> RedirectResponse:
        """Logs in the holder of the key with this id."""
        response = self.go(place)
        self._keep(response, self.context.sessions.seal(self.context.sessions.begin(key)))
        return response

    def leave(self, place: str) -> RedirectResponse:
        """Logs out."""
        response = self.go(place)
        self._keep(response, "", 0)
        return response

    def _keep(self, response: HTMLResponse | RedirectResponse, value: str, seconds: int = LASTS) -> None:
        secure = self.request.url.scheme == "https"
        response.set_cookie(self.context.sessions.cookie, value, max_age=seconds, httponly=True, samesite="strict", secure=secure)


class View(Guest):
    """A visitor who may see the pages of a project. Raises 401 for anyone else."""

    def __init__(self, request: Request, context: Ctx) -> None:
        super().__init__(request, context)
        if self.member is None:
            raise auth.unauthorized("This page needs an API key", auth.WHERE)
        self.project = self.member


Visitor = Annotated[Guest, Depends(Guest)]
"""Parameter type of a page that anyone may see."""
Seen = Annotated[View, Depends(View)]
"""Parameter type of a page that shows what belongs to a project."""

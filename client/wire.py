"""HTTP to the service: every failure becomes one of our errors; server-sent events are read line by line."""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import TypeAdapter, ValidationError

from sparring.errors import ApiError, ServiceAway, UsageProblem

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds without a byte after which the service counts as gone; it sends a sign of life on an idle event stream far more often."""


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused(response: httpx2.Response) -> ApiError:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"detail": f"{response.url.copy_with(query=None)} answered {response.status_code}, and not as Sparring does"}
    problems = [fault for fault in body.get("problems", ()) if isinstance(fault, dict)]
    told = {name: str(body.get(name, "")) for name in ("type", "title", "detail", "hint")}
    return ApiError(response.status_code, problems=problems, **told)


def _headers(key: str | None) -> dict[str, str]:
    given = (key or "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", given):
        hint = "Give it whole, as `sparring up` or `sparring keys create` printed it (SPARRING_KEY): svc_, then letters, digits, _ and -"
        raise UsageProblem("The API key holds characters that no key has", hint)
    return {"Authorization": f"Bearer {given}"} if given else {}


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port):
            return str(httpx2.URL(url)).rstrip("/")
    except (ValueError, httpx2.InvalidURL):
        pass  # told below, like any other that is none
    raise UsageProblem(f"{url!r} is no address of a service", "Write it as http://host:port")


class Wire:
    """One service, reached with one key.

    Raises UsageProblem for a URL or a key that is none, ServiceAway where nobody answers, ApiError where the service refuses.
    """

    def __init__(self, url: str, key: str | None, transport: httpx2.BaseTransport | None = None) -> None:
        self.url = _checked(url)
        self._http = httpx2.Client(
            base_url=self.url,
            headers=_headers(key),
            timeout=TIMEOUT,
            # A proxy of the environment cannot reach this machine's own loopback.
            trust_env=not _is_loopback(self.url),
            transport=transport or httpx2.HTTPTransport(retries=2),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx2.Response]:
        """A response whose body is not read yet."""
        try:
            with self._http.stream(method, path, **options) as response:
                if response.is_error:
                    response.read()
                    raise _refused(response)
                yield response
        except httpx2.TransportError as error:
            hint = "Check SPARRING_URL, or start a service of your own with `sparring up`"
            raise ServiceAway(f"The service at {self.url} cannot be reached: {error or type(error).__name__}", hint) from error

    def request(self, method: str, path: str, **options: Any) -> bytes:
        """The body of a response."""
        with self.stream(method, path, **options) as response:
            return response.read()

    def ask(self, wanted: TypeAdapter[T], method: str, path: str, *, params: Mapping[str, Any] | None = None, **options: Any) -> T:
        """The body of a response as an object of the contract; parameters that are None are left out."""
        given = {name: value for name, value in (params or {}).items() if value is not None}
        body = self.request(method, path, params=given, **options)
        try:
            return wanted.validate_json(body)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            detail = f"{self.url}{path} answered with something this version does not understand ({where}: {fault['msg']})"
            raise ApiError(200, "", "", detail, hint="Use the same version of Sparring on both sides") from error


class Message(NamedTuple):
    """One server-sent event."""

    id: str
    data: str


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """The server-sent events in a stream of bytes; comments and an event cut off at the end are dropped."""
    pending, ident, data = b"", "", list[str]()
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8", "replace")
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            elif name == "id":
                ident = value.removeprefix(" ")
            elif not line and data:
                yield Message(ident, "\n".join(data))
                data = []

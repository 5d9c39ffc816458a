"""The list of endpoints: which ones each project may have asked, how fast and how often, and the secrets they want.

It is a JSON file that the operator writes, of one list for each project:
`{"default": [{"origin": "https://models.example.com", "rate": 50, "secrets": {"TOKEN": "Bearer …"}}]}`.
It is read whenever it is needed, so that a change holds from the next job on.
"""

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, TypeAdapter, ValidationError, field_validator

from sparring.contract.endpoints import SECRET, AnyEndpoint, Budget, Queries, host, origin
from sparring.storage.addresses import Network, Resolver, pinned, resolve
from sparring.storage.errors import Forbidden

_LIST = "the service's list of endpoints"


class Grant(BaseModel):
    """One endpoint that a project may have asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)

    origin: str
    """Scheme, host and port, such as https://models.example.com. Plain http must be asked for by writing it here."""
    addresses: tuple[IPvAnyNetwork, ...] = ()
    """Networks in which the host may lie although they are not public, such as 10.0.0.0/8."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """Requests a second of a job, at most."""
    asked: Queries | None = None
    """Rows a job may ask, at most."""
    sent: Queries | None = None
    """Requests a job may send, at most."""
    ca: Path | None = None
    """File of the certificates to trust instead of the usual ones."""
    secrets: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")], SecretStr] = {}
    """Values of headers, by name; they are sent to this endpoint and to no other."""

    @field_validator("origin")
    @classmethod
    def _origin(cls, given: str) -> str:
        found = origin(given)
        if given.rstrip("/").count("/") > 2:
            raise ValueError("is more than scheme, host and port")
        return found

    @property
    def networks(self) -> tuple[Network, ...]:
        """Where its host may lie although that is not public: an address that is named itself is allowed by that."""
        try:
            return (*self.addresses, ipaddress.ip_network(urlsplit(self.origin).hostname or ""))
        except ValueError:
            return self.addresses

    def headers(self, endpoint: AnyEndpoint) -> dict[str, SecretStr]:
        """The headers of a request, with every secret in its place."""
        return {
            name: self.secrets[value.removeprefix(SECRET)] if value.startswith(SECRET) else SecretStr(value)
            for name, value in endpoint.headers.items()
        }

    def budget(self, wanted: Budget | None) -> Budget:
        """What a job may spend: what it asks for, as far as it is granted."""
        wanted = wanted or Budget()
        asked, sent = min(wanted.asked, self.asked or wanted.asked), min(wanted.requests, self.sent or wanted.requests)
        return Budget(asked=asked, sent=sent)


_GRANTS: TypeAdapter[dict[str, tuple[Grant, ...]]] = TypeAdapter(dict[str, tuple[Grant, ...]])


def granted(path: Path, project: str, endpoint: AnyEndpoint) -> Grant:
    """What a project is allowed of an endpoint, by the list at `path`.

    Raises:
        Forbidden: it is not on the list, wants a secret that is not there, or the list cannot be read.
    """
    grant = _listed(path, project, endpoint.origin)
    if grant is None:
        hint = f'An operator of the service allows it by {{"origin": "{endpoint.origin}"}} in {_LIST}, under "{project}".'
        raise Forbidden("not_allowed", f"{endpoint.origin} is not among the endpoints that this project may have asked", hint)
    if absent := [name for name in endpoint.secrets if name not in grant.secrets]:
        hint = f"An operator of the service puts it there, in `secrets` of {endpoint.origin}."
        raise Forbidden("secret_missing", f"there is no secret {absent[0]} for {endpoint.origin} in {_LIST}", hint)
    return grant


def receiver(path: Path, project: str, url: str) -> Grant | None:
    """What a project is allowed of a webhook's receiver by the list at `path`; None for one not on it, which must be public.

    Raises:
        Forbidden: it is plain http and not on the list, or the list cannot be read.
    """
    whose = origin(url)
    grant = _listed(path, project, whose)
    if grant is None and not whose.startswith("https:"):
        hint = f'Use https; or an operator of the service allows it by {{"origin": "{whose}"}} in {_LIST}, under "{project}".'
        raise Forbidden("not_allowed", f"{whose} is plain http", hint)
    return grant


def check_receiver(path: Path, project: str, url: str, resolver: Resolver = resolve) -> None:
    """Raises Forbidden where a project may not post to a webhook, as far as it can be told here and now."""
    grant = receiver(path, project, url)
    _check_host(host(url), grant.networks if grant else (), resolver)


def check(path: Path, project: str, endpoint: AnyEndpoint, resolver: Resolver = resolve) -> None:
    """Raises Forbidden where a project may not have this endpoint asked, as far as it can be told here and now."""
    _check_host(endpoint.host, granted(path, project, endpoint).networks, resolver)


def _listed(path: Path, project: str, whose: str) -> Grant | None:
    return next((each for each in _read(path).get(project, ()) if each.origin == whose), None)


def _check_host(where: tuple[str, int], allowed: tuple[Network, ...], resolver: Resolver) -> None:
    try:
        pinned(*where, allowed, resolver)
    except OSError:
        return  # a name that only workers can look up; they look again in any case


def _read(path: Path) -> dict[str, tuple[Grant, ...]]:
    hint = "An operator of the service must set it right."
    try:
        return _GRANTS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Forbidden("not_allowed", f"{_LIST} cannot be read: {error.strerror}", hint) from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"] if part != "secrets")
        raise Forbidden("not_allowed", f"{_LIST} is not valid at {where or 'its start'}: {fault['msg']}", hint) from None

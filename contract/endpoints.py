"""Models that are HTTP endpoints: how one is asked, and how its answer is read. Secrets are named here, never held."""

import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeGuard, get_args
from urllib.parse import parse_qsl, quote, urlsplit

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, TypeAdapter, field_validator, model_validator

from sparring.contract.attacks.base import Access
from sparring.contract.base import Frozen, require_kind
from sparring.contract.quantity import NotBool

Gives = Literal["scores", "probabilities", "labels"]
"""What an endpoint answers for a row: a number per class (logits, or what looks like probabilities), or only the class's number."""

SECRET = "secret:"
"""Before the name of a secret, in place of a header's value."""
MOST_QUERIES = 10**9
_LARGEST = 1e300
_USUAL = {"http": 80, "https": 443}
_ROW, _ROWS, _FLAT, _SHAPE = "{row}", "{rows}", "{flat}", "{shape}"
_TELLING = re.compile(r"auth|key|token|secret|cookie|passw|credential|session|signature|\bsig\b", re.IGNORECASE)
_CREDENTIAL = re.compile(r"(bearer|basic|token|digest)\s", re.IGNORECASE)
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"})
_REFERENCE = re.compile(rf"{SECRET}[A-Za-z0-9_]{{1,64}}")

_DEFAULT: JsonValue = {"inputs": _ROWS}
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,498}[\x21-\x7e])?$")]
Word = Annotated[str, Field(pattern=r"^[\w.\-]{1,200}$")]
Queries = Annotated[int, Field(ge=1, le=MOST_QUERIES), NotBool]


class Budget(Frozen):
    """How much a job may ask of an endpoint, at most. Neither number is ever passed; a job that would need more fails."""

    asked: Queries = 100_000
    """Rows put to the model. One that was answered before in the same job is not asked again, and not counted again."""
    sent: Queries | None = None
    """Requests over the wire, those that failed and were tried again included; unless given, a fifth more than `asked`."""

    @property
    def requests(self) -> int:
        """`sent` as it is meant."""
        return self.asked + self.asked // 5 + 1 if self.sent is None else self.sent


class _Endpoint(Frozen):
    """What every endpoint has."""

    url: Annotated[str, Field(max_length=2000)]
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=20)] = Field(default_factory=dict)
    """Sent with every request. A value `secret:NAME` stands for the secret of that name in the service's list of endpoints."""
    gives: Gives = "scores"
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=8)] | None = None
    """Shape of a row as the endpoint wants it, such as 64 for flat pixels; that of the data unless given."""
    batch: Annotated[int, Field(ge=1, le=1024), NotBool] = 1
    """Rows in a request, at most."""
    connections: Annotated[int, Field(ge=1, le=64), NotBool] = 16
    """Requests under way at once, at most."""
    rate: Annotated[float, Field(gt=0, le=100_000), NotBool] | None = None
    """Requests a second, at most."""
    timeout: Annotated[float, Field(gt=0, le=600), NotBool] = 30.0
    """Seconds in which a request must be answered whole."""
    retries: Annotated[int, Field(ge=0, le=20), NotBool] = 5
    """Times a request is tried again that failed: no connection, no answer in time, or status 429 or 5xx."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = plain(url)
        if "@" in parts.netloc:
            raise ValueError("must not hold a user or a password: put them into a header, as secret:NAME")
        if telling := next((name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _TELLING.search(name)), None):
            raise ValueError(f"the parameter {telling[:50]!r} looks like a credential: put it into a header, as secret:NAME")
        return url

    @field_validator("headers")
    @classmethod
    def _harmless(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if name.lower() in _OURS or name.lower().startswith("proxy-"):
                raise ValueError(f"{name} is set by the service itself")
            if value.startswith(SECRET) and not _REFERENCE.fullmatch(value):
                raise ValueError(f"{name}: a secret is named as {SECRET}NAME, by letters, digits and _")
            if (_TELLING.search(name) or _CREDENTIAL.match(value)) and not value.startswith(SECRET):
                raise ValueError(f"{name} looks like a credential: write {SECRET}NAME, and have the service's operator keep it under NAME")
        return headers

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.url

    @property
    def origin(self) -> str:
        """Scheme, host and port, as lists of endpoints name them: `https://models.example.com:8443`."""
        return origin(self.url)

    @property
    def host(self) -> tuple[str, int]:
        """Host and port."""
        return host(self.url)

    @property
    def access(self) -> Access:
        """What an attacker may ask of it."""
        return "decision" if self.gives == "labels" else "score"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets it needs."""
        return tuple(sorted({value.removeprefix(SECRET) for value in self.headers.values() if value.startswith(SECRET)}))


class HttpEndpoint(_Endpoint):
    """A JSON endpoint of its own kind: a template says what is posted, a pointer where in the answer the predictions are."""

    kind: Literal["endpoint"] = "endpoint"
    request: JsonValue = _DEFAULT
    """What is posted. In it `"{rows}"` stands for the rows as nested lists, or `"{row}"` for a single one, or `"{flat}"` for all
    their numbers in one list; `"{shape}"` for rows and their shape, [rows, …]."""
    response: Annotated[str, Field(max_length=500, pattern=r"^(/([^/~]|~[01])*)*$")] = ""
    """JSON pointer (RFC 6901) to the predictions, such as /predictions; the whole answer unless given."""

    @model_validator(mode="after")
    def _fillable(self) -> Self:
        found = [part for part in _strings(self.request) if part in (_ROW, _ROWS, _FLAT)]
        if len(found) != 1:
            raise ValueError(f'request: must hold exactly one of "{_ROWS}", "{_ROW}" and "{_FLAT}" as a value, not {len(found)}')
        if found == [_ROW] and self.batch > 1:
            raise ValueError(f'batch: a request with "{_ROW}" carries one row; write "{_ROWS}" for more')
        return self


class OpenInference(_Endpoint):
    """A model behind the open inference protocol (v2): KServe, Triton, MLServer and others."""

    kind: Literal["v2"] = "v2"
    url: Annotated[str, Field(max_length=2000)]
    """Of the server, without `/v2/models/…`."""
    model: Word
    version: Word | None = None
    input: Word
    """Name of the model's input, of datatype FP32."""
    output: Word | None = None
    """Name of the output to read; the first unless given."""

    @field_validator("url")
    @classmethod
    def _base(cls, url: str) -> str:
        if urlsplit(url).query:
            raise ValueError("must be the address of the server alone, without parameters")
        return url

    @property
    def address(self) -> str:
        """Where requests go."""
        version = f"/versions/{quote(self.version)}" if self.version else ""
        return f"{self.url.rstrip('/')}/v2/models/{quote(self.model)}{version}/infer"

    @cached_property
    def request(self) -> JsonValue:
        """What is posted, as a template."""
        outputs: dict[str, JsonValue] = {"outputs": [{"name": self.output}]} if self.output else {}
        return {"inputs": [{"name": self.input, "shape": _SHAPE, "datatype": "FP32", "data": _FLAT}], **outputs}

    @property
    def response(self) -> str:
        """Where the predictions are."""
        return "/outputs/0/data"


AnyEndpoint = HttpEndpoint | OpenInference
EndpointSpec = Annotated[AnyEndpoint, Discriminator("kind"), BeforeValidator(lambda given: require_kind(given, get_args(AnyEndpoint)))]
ENDPOINT: TypeAdapter[HttpEndpoint | OpenInference] = TypeAdapter(EndpointSpec)


def plain(url: str) -> Any:
    """The parts of an address that can be asked as it is written. Raises ValueError where it cannot."""
    parts = _split(url)
    if parts.fragment or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ValueError("must be plain printable ASCII without a fragment; write other characters as %XX")
    return parts


def host(url: str) -> tuple[str, int]:
    """Host and port of an address. Raises ValueError where it has none."""
    parts = _split(url)
    return parts.hostname.rstrip("."), parts.port or _USUAL[parts.scheme]


def origin(url: str) -> str:
    """Scheme, host and port of an address, in one spelling. Raises ValueError where it has none."""
    parts = _split(url)
    host = parts.hostname.rstrip(".")
    port = f":{parts.port}" if parts.port not in (None, _USUAL[parts.scheme]) else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def filled(template: JsonValue, rows: list[Any], shape: tuple[int, ...], flat: list[float]) -> JsonValue:
    """What is posted for some rows: nested lists of this shape each, and all their numbers in one list."""
    values: dict[str, Any] = {_ROW: rows[0], _ROWS: rows, _FLAT: flat, _SHAPE: [len(rows), *shape]}

    def fill(part: JsonValue) -> JsonValue:
        if isinstance(part, dict):
            return {name: fill(value) for name, value in part.items()}
        if isinstance(part, list):
            return [fill(value) for value in part]
        return values.get(part, part) if isinstance(part, str) else part

    return fill(template)


def predictions(answer: JsonValue, pointer: str, count: int, gives: Gives) -> list[list[float]]:
    """What an answer says of each of `count` rows: its scores, or a list of one label.

    Raises ValueError, in words for the user, where it says something else.
    """
    found = _pointed(answer, pointer)
    values: list[Any] = found if isinstance(found, list) else [found]
    nested = any(isinstance(value, list) for value in values)
    each = len(values) // count or 1
    rows = values if nested else [values[at : at + each] for at in range(0, len(values), each)]
    if len(rows) != count:
        raise ValueError(f"for {count} rows there are {len(values)} {'predictions' if nested else 'numbers'}")
    return [_prediction(row, gives) for row in rows]


def _prediction(row: JsonValue, gives: Gives) -> list[float]:
    numbers = [value for value in row if _is_number(value)] if isinstance(row, list) else []
    if not isinstance(row, list) or len(numbers) != len(row):
        raise ValueError("a prediction is not a list of finite numbers")
    if gives == "labels":
        if len(numbers) != 1 or numbers[0] < 0 or numbers[0] != int(numbers[0]):
            raise ValueError("a label is not a single whole number from 0")
    elif len(numbers) < 2:
        raise ValueError("a row has fewer than two scores: there must be one for each class (or declare gives: labels)")
    return [float(number) for number in numbers]


def _is_number(value: JsonValue) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _pointed(answer: JsonValue, pointer: str) -> JsonValue:
    """The value a JSON pointer leads to."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(answer, dict) and name in answer:
            answer = answer[name]
        elif isinstance(answer, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", name) and int(name) < len(answer):
            answer = answer[int(name)]
        else:
            raise ValueError(f"there is nothing at {pointer}")
    return answer


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port):
            return parts
    except ValueError:
        pass  # told below, like any other that is none
    raise ValueError("must be an address such as https://host:port/path")


def _strings(part: JsonValue) -> list[str]:
    if isinstance(part, dict):
        return [text for value in part.values() for text in _strings(value)]
    if isinstance(part, list):
        return [text for value in part for text in _strings(value)]
    return [part] if isinstance(part, str) else []

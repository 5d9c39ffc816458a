"""Forms as they come in: fields by name, checked to be from a page of ours; a file last, streamed."""

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from sparring.service.context import MAX_BODY, Ctx
from sparring.service.problems import problem
from sparring.service.web.view import Guest

TOKEN = "csrf"
_MOST = 500


class Fields(dict[str, list[str]]):
    """What was filled in; a field may be there several times."""

    def one(self, name: str) -> str:
        """The field without spaces around it; empty where it was not filled in."""
        return self.get(name, [""])[-1].strip()

    def many(self, name: str) -> list[str]:
        """Every value of the field that is not empty."""
        return [each.strip() for each in self.get(name, []) if each.strip()]

    def add(self, name: str, value: str) -> None:
        """One more value of a field."""
        self.setdefault(name, []).append(value)


def parsed(encoded: str) -> Fields:
    """Fields of a query, or of a form that came like one. Raises 422 where there are too many."""
    fields = Fields()
    try:
        for name, value in parse_qsl(encoded, keep_blank_values=True, max_num_fields=_MOST, errors="replace"):
            fields.add(name, value)
    except ValueError:
        raise problem(422, "invalid-request", f"The form has more than {_MOST} fields") from None
    return fields


async def _body(request: Request) -> AsyncIterator[bytes]:
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > MAX_BODY:
            raise problem(413, "too-large", f"The form is larger than {MAX_BODY} bytes")
        yield piece


async def _filled(request: Request, context: Ctx) -> Fields:
    """The fields of a form. Raises 403 where it was not sent from a page of this session."""
    body = b"".join([piece async for piece in _body(request)])
    fields = parsed(body.decode(errors="replace"))
    guest = await run_in_threadpool(Guest, request, context)
    guest.check(fields.one(TOKEN))
    return fields


Filled = Annotated[Fields, Depends(_filled)]
"""Parameter type of a page that takes a form without a file."""

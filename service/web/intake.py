"""Uploads through a form: its fields are held against the contract, its file goes the way of every upload."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi_problem.error import Problem
from pydantic import ValidationError

from sparring.service.context import MAX_BODY
from sparring.service.problems import problem
from sparring.service.uploads import too_large
from sparring.service.web.faults import Faults, of_problem, of_validation
from sparring.service.web.fields import TOKEN, Fields
from sparring.service.web.multipart import Multipart, drained
from sparring.service.web.view import View

Made = TypeVar("Made")

FILE = "file"
_NAME = 100


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@dataclass
class Intake:
    """What came with a form, and what is wrong with it."""

    fields: Fields = field(default_factory=Fields)
    given: dict[str, str] = field(default_factory=dict)
    """The fields that were filled in, by the contract's names."""
    pieces: AsyncIterator[bytes] = field(default_factory=_nothing)
    """The file."""
    faults: Faults = field(default_factory=dict)

    def shown(self, page: View) -> dict[str, Any]:
        """What the form of an upload is drawn with."""
        return {"values": self.fields, "faults": self.faults, "limit": page.context.settings.max_upload}


def suggested(filename: str) -> str:
    """A name for an upload after its file: `my model.v2` of `my model.v2.pt2`; empty where nothing of it can stay."""
    stem = re.split(r"[/\\]", filename)[-1].rpartition(".")[0]
    return re.sub(r"[^\w .+\-]+", "-", stem)[:_NAME].strip("- ")


async def taken_in(
    page: View, request: Request, names: Sequence[str], store: Callable[[Intake], Awaitable[Made]]
) -> tuple[Intake, Made | None]:
    """What `store` made of the form; None where the form is faulty. Raises 400, 403 and 413 where it is no form of ours."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise problem(411, "length-required", "The form does not say how long it is")
    if int(length) > page.context.settings.max_upload + MAX_BODY:
        raise too_large(page.context.settings.max_upload)
    form = Multipart(request)
    await form.open()
    page.check(form.fields.one(TOKEN))
    given = {name: form.fields.one(name) for name in names if form.fields.one(name)}
    given.setdefault("name", suggested(form.filename) or "unnamed")
    intake = Intake(form.fields, given, form.file())
    if not form.filename:
        intake.faults[FILE] = "Choose a file."
        return intake, None
    try:
        return intake, await store(intake)
    except ValidationError as error:
        intake.faults = of_validation(error, given)
    except Problem as told:
        intake.faults = of_problem(told, FILE)
    await drained(form)
    return intake, None

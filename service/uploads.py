"""Bodies of any size, streamed to the artifacts: counted, hashed and looked at before anything is kept."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Request
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool

from sparring.contract.base import Frozen
from sparring.contract.fields import Sha256
from sparring.service.context import Context
from sparring.service.problems import Fault, invalid, problem
from sparring.storage.artifacts import Blob
from sparring.storage.sniff import HEAD, Rejected

CHUNK = 1 << 20
"""Bytes gathered before they are written."""
PATIENCE = 60.0
"""Seconds without a byte after which an upload is given up."""

Format = TypeVar("Format")
Sniff = Callable[[bytes, Path], Format]


class UploadQuery(Frozen):
    """What any upload may say of itself."""

    sha256: Annotated[Sha256 | None, Field(examples=[None])] = None
    """What the bytes must hash to; if they do not, nothing is stored."""

    @model_validator(mode="before")
    @classmethod
    def _unlisted(cls, given: object) -> object:
        """A query writes a list as `mean=0.5,0.4` or as `mean=0.5&mean=0.4`; the first comes as a list of one."""
        if not isinstance(given, dict):
            return given
        return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in given.items()}


def raw_body(example: str) -> dict[str, Any]:
    """OpenAPI's words for a body of raw bytes."""
    return {
        "requestBody": {
            "required": True,
            "description": f"The file itself: `curl -T {example} …` or `curl --data-binary @{example} …`; not a form",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    }


def _check_headers(request: Request, limit: int) -> None:
    if request.headers.get("content-type", "").startswith("multipart/"):
        target = f"{request.base_url}".rstrip("/") + request.url.path
        hint = f"Send the file itself: curl -X POST -T FILE -H 'Authorization: Bearer KEY' {target} (curl -F makes a form)"
        raise problem(415, "unsupported-media-type", "The body must be the file itself, not a form", hint=hint)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large(limit)


def too_large(limit: int) -> Exception:
    """413 for an upload of more than `limit` bytes."""
    return problem(
        413, "too-large", f"The upload is larger than {limit} bytes", hint="Raise SPARRING_MAX_UPLOAD on the server if it should be taken"
    )


async def _chunks(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """A body in pieces of about CHUNK bytes. Raises 413 beyond the limit, 408 when nothing comes any more."""
    gathered, total = bytearray(), 0
    while True:
        try:
            with anyio.fail_after(PATIENCE):
                piece = await anext(stream, None)
        except TimeoutError:
            raise problem(408, "upload-stalled", f"Nothing came for {PATIENCE:.0f} s; the upload was given up") from None
        if piece is None:
            break
        total += len(piece)
        if total > limit:
            raise too_large(limit)
        gathered += piece
        if len(gathered) >= CHUNK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def accept(request: Request, context: Context, sniff: Sniff[Format], sha256: str | None) -> tuple[Blob, Format]:
    """Stores the request's body and tells its format.

    Raises 413, 415 or 422, and storage's DigestMismatch and Full; whatever is raised, nothing of the body stays.
    """
    _check_headers(request, context.settings.max_upload)
    return await keep(request.stream(), context, sniff, sha256)


async def keep(stream: AsyncIterator[bytes], context: Context, sniff: Sniff[Format], sha256: str | None = None) -> tuple[Blob, Format]:
    """Stores the bytes of a stream and tells their format. Raises as `accept` does, but for 415."""
    limit, head = context.settings.max_upload, b""
    with await run_in_threadpool(context.folder.writer) as writer:
        async for chunk in _chunks(stream, limit):
            head = head or chunk[:HEAD]
            await run_in_threadpool(writer.write, chunk)
        if not head:
            raise invalid(Fault("body", "", "The body is empty; send the file itself, such as curl -T FILE"), code="malformed")
        try:
            # Looked at before the commit: a blob that is visible might already serve another upload, and could not be taken back.
            found = await run_in_threadpool(sniff, head, writer.path)
        except Rejected as rejected:
            raise problem(422, rejected.code, rejected.message, hint=rejected.hint) from rejected
        blob = await run_in_threadpool(writer.commit, sha256)
    return blob, found

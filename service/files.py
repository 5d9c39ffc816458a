"""Artifacts as HTTP answers: ranges, an `ETag` that is the sha256, 304 where the caller has the bytes already."""

from collections.abc import Mapping

from fastapi import Request, Response
from fastapi.responses import FileResponse

from sparring.service.context import Context
from sparring.storage.errors import Missing

BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "description": "The bytes"}
"""OpenAPI's words for a download."""


def _known(request: Request, etag: str) -> bool:
    given = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    return etag in given or "*" in given


def send(
    context: Context,
    request: Request,
    sha256: str,
    media_type: str,
    *,
    download_as: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The blob, to be saved under the name `download_as` if that is given, else to be shown. Raises Missing where the store has lost it."""
    etag = f'"{sha256}"'
    marked = {"ETag": etag, "Cache-Control": "private, no-cache", **(headers or {})}
    if _known(request, etag):
        return Response(status_code=304, headers=marked)
    path = context.folder.local_path(sha256)
    if not path.is_file():
        raise Missing(f"The bytes of sha256 {sha256} are no longer stored; upload them again")
    return FileResponse(path, media_type=media_type, filename=download_as, headers=marked)

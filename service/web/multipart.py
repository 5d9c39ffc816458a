"""A form with a file, read as it comes: the fields before the file are held, the file is handed on in pieces and never held."""

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from sparring.service.context import MAX_BODY
from sparring.service.problems import problem
from sparring.service.web.fields import Fields


def _malformed(why: str) -> Exception:
    return problem(400, "malformed-form", f"The form cannot be read: {why}", hint="Send it from the page that shows it")


class Multipart:
    """One form of type multipart/form-data. Raises 400 wherever it is not well-formed, 413 where its fields are too long."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise _malformed("it is not of type multipart/form-data")
        self.fields = Fields()
        """Fields that stood before the file."""
        self.filename = ""
        """What the file is called where it comes from; empty where none was chosen."""
        self._stream = request.stream()
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_end,
            },
        )
        self._name, self._value, self._disposition, self._text = bytearray(), bytearray(), b"", bytearray()
        self._field = ""
        self._in_file = self._filed = False
        self._held = 0
        self._pieces: list[bytes] = []

    async def open(self) -> None:
        """Reads the fields, as far as the file."""
        while not self._filed and await self._feed():
            pass

    async def file(self) -> AsyncIterator[bytes]:
        """The bytes of the file."""
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
            if not await self._feed():
                break
        for piece in self._pieces:
            yield piece

    async def _feed(self) -> bool:
        """Whether there was more."""
        piece = await anext(self._stream, b"")
        try:
            if piece:
                self._parser.write(piece)
            else:
                self._parser.finalize()
        except MultipartParseError as error:
            raise _malformed(str(error)) from error
        return bool(piece)

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        self._field = options.get(b"name", b"").decode(errors="replace")
        self._in_file = b"filename" in options and not self._filed
        if self._in_file:
            self._filed = True
            self.filename = options[b"filename"].decode(errors="replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
        elif not self._filed:
            self._held += end - start
            if self._held > MAX_BODY:
                raise problem(413, "too-large", f"The fields of the form are longer than {MAX_BODY} bytes")
            self._text += data[start:end]

    def _on_end(self) -> None:
        if not self._filed:
            self.fields.add(self._field, self._text.decode(errors="replace"))
        self._text.clear()
        self._in_file = False


async def drained(form: Multipart) -> None:
    """Reads what is left: a browser that is still sending would take an early answer for a broken connection."""
    try:
        async for _ in form.file():
            pass
    except ClientDisconnect:
        return

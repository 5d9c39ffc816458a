"""pictures.zip: broken rows of image data as they may be looked at, each picture a PNG file, found by threat and row."""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from sparring.contract.report import DataFacts
from sparring.reports.png import SIGNATURE

PICTURES = "pictures.zip"
LARGEST = 4 << 20
"""Bytes that a picture may have."""
_WHEN = (1980, 1, 1, 0, 0, 0)
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
"""What reading a zip may raise that is cut off, damaged, encrypted or packed in another way."""


class Unreadable(ValueError):
    """A pictures.zip that does not hold what was written."""


class Broken(NamedTuple):
    """A row as it broke a model, in PNG files."""

    perturbation: bytes
    """x' - x, amplified; mid-grey is no change."""
    adversarial: bytes


def upright(shape: Sequence[int], layout: str | None) -> tuple[int, int, int] | None:
    """(height, width, channels) of rows of this shape; None if they are no pictures, or none that a page could show."""
    if len(shape) == 3 and layout != "NHWC":
        shape = (*shape[1:], shape[0])
    height, width, channels = (*shape, 1)[:3] if len(shape) in (2, 3) else (0, 0, 0)
    return (height, width, channels) if min(height, width) >= 4 and max(height, width) <= 1024 and channels in (1, 3) else None


def why_none(data: DataFacts) -> str:
    """Why there are no pictures of these rows: they are none, or none were kept."""
    if upright(data.shape[1:], data.spec.layout) is None:
        return f"The rows are no pictures: their shape is {' × '.join(map(str, data.shape[1:]))}."
    return "No pictures of them were kept."


class Album:
    """Writes pictures.zip, and reads it back."""

    def __init__(self, file: Path | IO[bytes], *, new: bool = False) -> None:
        """At `file`. Raises OSError where it cannot be written, Unreadable where it cannot be read."""
        try:
            self._zip = zipfile.ZipFile(file, "w" if new else "r")
        except _BROKEN as error:
            if new:
                raise
            raise Unreadable(f"{PICTURES} cannot be read: {error}") from error
        self._known = set(self._zip.namelist())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def __bool__(self) -> bool:
        """Whether it holds any."""
        return bool(self._known)

    def keep_original(self, row: int, png: bytes) -> None:
        """A row as it is; what is kept already stays."""
        self._write(f"original/{row}.png", png)

    def keep_broken(self, threat: int, row: int, pictures: Broken) -> None:
        """A row as it broke the model under a threat of the job."""
        for name, png in zip(_names(threat, row), pictures, strict=True):
            self._write(name, png)

    def original(self, row: int) -> bytes | None:
        """A row as it is; None if it was not kept. Raises Unreadable."""
        return self._read(f"original/{row}.png")

    def broken(self, threat: int, row: int) -> Broken | None:
        """A row as it broke the model under a threat of the job; None if it was not kept. Raises Unreadable."""
        perturbation, adversarial = map(self._read, _names(threat, row))
        return Broken(perturbation, adversarial) if perturbation and adversarial else None

    def _write(self, name: str, png: bytes) -> None:
        if name not in self._known:
            self._known.add(name)
            self._zip.writestr(zipfile.ZipInfo(name, _WHEN), png)

    def _read(self, name: str) -> bytes | None:
        if name not in self._known:
            return None
        try:
            if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is packed")
            with self._zip.open(name) as file:
                png = file.read(LARGEST + 1)
        except _BROKEN as error:
            raise Unreadable(f"{name} in {PICTURES} cannot be read: {error}") from error
        if len(png) > LARGEST or not png.startswith(SIGNATURE):
            raise Unreadable(f"{name} in {PICTURES} is no picture")
        return png


def _names(threat: int, row: int) -> tuple[str, str]:
    return f"{threat}/{row}/perturbation.png", f"{threat}/{row}/adversarial.png"

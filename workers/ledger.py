"""The ledger of a job on an endpoint: every row that was put to it, and what it answered.

It is a file of lines, appended to and never changed: a checksum, then JSON. What is about to be sent is written down before it is
sent, so that however the process ends no request goes uncounted; a line that was cut off, or has changed, is as if it were not there.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from sparring.contract.endpoints import Budget
from sparring.workers.errors import Refused

Row = tuple[float, ...]


class _Place(NamedTuple):
    """Where in the file an answer stands."""

    offset: int
    length: int


def key(look: int, row: bytes) -> str:
    """The name of a row in the ledger; the same row under another look has another."""
    return blake2b(bytes((look,)) + row, digest_size=16).hexdigest()


class Ledger:
    """What a job has asked so far, in all its attempts. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin one. Raises OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._answers: dict[str, _Place] = {}
        self._open: set[str] = set()
        self.sent = 0
        """Requests that were sent, or were about to be."""
        end = 0
        for place, record in self._records():
            end = place.offset + place.length
            self._count(place, record)
        if end and os.pread(self._file, 1, end - 1) != b"\n":
            os.write(self._file, b"\n")

    @property
    def asked(self) -> int:
        """Rows that were put to the endpoint."""
        return len(self._answers) + len(self._open)

    def __contains__(self, name: str) -> bool:
        """Whether a row was answered."""
        return name in self._answers

    def answer(self, name: str) -> Row:
        """What was answered for a row. Raises KeyError, and OSError when the file has changed under our hands."""
        place = self._answers[name]
        record = _read(os.pread(self._file, place.length, place.offset))
        if record is None:
            raise OSError("the ledger of the job has changed on disk")
        return tuple(record["got"][name])

    def spend(self, names: Sequence[str], budget: Budget) -> None:
        """Write down a request for some rows before it is sent. Raises Refused when the budget has no room for it, and OSError."""
        fresh = sum(name not in self._open and name not in self._answers for name in set(names))
        if self.asked + fresh > budget.asked:
            raise _spent("asked", budget.asked, f"{self.asked} rows were asked")
        if self.sent >= budget.requests:
            raise _spent("sent", budget.requests, f"{self.sent} requests were sent")
        self._write({"ask": list(names)})

    def learn(self, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Write down what was answered. Raises OSError."""
        self._write({"got": dict(zip(names, rows, strict=True))})

    def close(self) -> None:
        """Make it durable, and let go of it."""
        os.fsync(self._file)
        os.close(self._file)

    def _write(self, record: dict[str, Any]) -> None:
        text = to_json(record)
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if os.write(self._file, line) != len(line):
            raise OSError(28, "the ledger could not be written whole")
        self._count(_Place(os.lseek(self._file, 0, os.SEEK_CUR) - len(line), len(line)), record)

    def _count(self, place: _Place, record: dict[str, Any] | None) -> None:
        if record and "ask" in record:
            self.sent += 1
            self._open.update(name for name in record["ask"] if name not in self._answers)
        elif record:
            self._answers |= dict.fromkeys(record["got"], place)
            self._open.difference_update(record["got"])

    def _records(self) -> Iterator[tuple[_Place, dict[str, Any] | None]]:
        with os.fdopen(os.dup(self._file), "rb") as file:
            offset = 0
            for line in file:
                yield _Place(offset, len(line)), _read(line)
                offset += len(line)


def _read(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where it was cut off or has changed."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        return None
    record: dict[str, Any] = from_json(text)
    return record


def _spent(which: str, most: int, so_far: str) -> Refused:
    hint = "What was learnt is kept, but this job can ask no more: submit one with a larger budget, fewer rows or cheaper attacks."
    message = f"the job may come to {which} = {most} and no more; {so_far}, and it is not done"
    return Refused("budget_spent", message, hint=hint, detail=which)

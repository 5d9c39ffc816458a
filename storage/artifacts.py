"""Content-addressed blobs in a folder: `ab/ab12…`, named by sha256, written once, never changed."""

import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self
from uuid import uuid4

from sparring.storage.errors import Corrupt, DigestMismatch, Full, Missing, TooLarge

CHUNK = 1 << 20
_SYNC = 64 << 20
"""Bytes after which what was written is made durable: the rest, for which nobody is told, is soon done then."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Watch = Callable[[], object]
"""Called between two pieces of long work; what it raises ends the work, and leaves nothing behind."""


def _nothing() -> None:
    """Watches over nothing."""


class Blob(NamedTuple):
    """Some bytes that are stored: their sha256 in hex, and how many they are."""

    sha256: str
    size: int


class Writer:
    """A blob on its way in. Nothing of it can be seen before `commit`; leaving the block without one throws it away."""

    def __init__(self, folder: "Folder", limit: int | None) -> None:
        self._folder = folder
        self._limit = limit
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes written so far."""
        self._durable = 0
        self.path = folder.tmp / uuid4().hex
        """Where the bytes written so far lie."""
        with _disk_full():
            folder.tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file: int | None = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()

    def write(self, chunk: bytes) -> None:
        """Appends. Raises TooLarge beyond the limit, Full when the disk is; the blob is thrown away then."""
        if self._file is None:
            raise ValueError("this blob was committed or thrown away already")
        self.size += len(chunk)
        try:
            if self._limit is not None and self.size > self._limit:
                raise TooLarge(f"more than the {self._limit} bytes that are allowed")
            self._hash.update(chunk)
            rest = memoryview(chunk)
            with _disk_full():
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                if self.size - self._durable >= _SYNC:
                    os.fdatasync(self._file)
                    self._durable = self.size
        except BaseException:
            self.abort()
            raise

    def commit(self, sha256: str | None = None, watch: Watch = _nothing) -> Blob:
        """Makes the blob durable and visible. Raises DigestMismatch unless it has the digest given, Full, and what `watch` raises."""
        if self._file is None:
            raise ValueError("this blob was committed or thrown away already")
        blob = Blob(self._hash.hexdigest(), self.size)
        try:
            if sha256 is not None and sha256 != blob.sha256:
                raise DigestMismatch(f"the {blob.size} bytes that arrived have sha256 {blob.sha256}, not {sha256}: send them again")
            with _disk_full():
                os.fchmod(self._file, 0o440)
                os.fsync(self._file)
                self._folder._publish(self.path, blob.sha256, watch)
        finally:
            self.abort()
        return blob

    def abort(self) -> None:
        """Throws away what was written; does nothing after a commit."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self.path.unlink(missing_ok=True)


class Folder:
    """The blobs of one installation. The folder may be shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"

    def writer(self, *, limit: int | None = None) -> Writer:
        """A blob to be written piece by piece, of at most `limit` bytes: `with folder.writer() as blob: …`."""
        return Writer(self, limit)

    def put(self, chunks: Iterable[bytes], *, limit: int | None = None, sha256: str | None = None, watch: Watch = _nothing) -> Blob:
        """Stores bytes. Raises TooLarge, DigestMismatch, Full, and what `watch` raises; nothing is left behind then."""
        with self.writer(limit=limit) as writer:
            for chunk in chunks:
                writer.write(chunk)
                watch()
            return writer.commit(sha256, watch)

    def local_path(self, sha256: str) -> Path:
        """Where the blob lies, or would lie. Raises Missing for what is not a sha256."""
        if not _DIGEST.fullmatch(sha256):
            raise Missing(f"{sha256[:80]!r} is not a sha256")
        return self.root / sha256[:2] / sha256

    def open(self, sha256: str) -> BufferedReader:
        """The blob, open for reading. Raises Missing."""
        try:
            return self.local_path(sha256).open("rb")
        except FileNotFoundError:
            raise Missing(f"the blob sha256:{sha256} is not stored: upload it again") from None

    def verify(self, sha256: str, watch: Watch = _nothing) -> None:
        """Reads the whole blob. Raises Missing, Corrupt when its bytes have changed, and what `watch` raises."""
        digest = hashlib.sha256()
        with self.open(sha256) as file:
            for chunk in chunks(file):
                digest.update(chunk)
                watch()
        if digest.hexdigest() != sha256:
            raise Corrupt(f"the blob sha256:{sha256} has changed on disk: upload it again to repair it")

    def delete(self, sha256: str) -> None:
        """Forgets a blob, if it is there."""
        self.local_path(sha256).unlink(missing_ok=True)

    def delete_unless(self, kept: set[str], older_than_s: float) -> int:
        """Deletes the blobs that are not in `kept` and were stored (again) longer ago than that; returns how many."""
        deleted = 0
        for path in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if path.name in kept or not _DIGEST.fullmatch(path.name):
                continue
            # A writer may hold the lock for as long as it takes to read a large blob; the garbage can wait for the next time.
            with suppress(BlockingIOError), self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                if _age(path) > older_than_s:
                    path.unlink(missing_ok=True)
                    deleted += 1
        return deleted

    def sweep(self, older_than_s: float) -> int:
        """Removes what writers that died have left, untouched for that many seconds; returns how many files."""
        stale = [path for path in self.tmp.glob("*") if _age(path) > older_than_s]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _publish(self, path: Path, sha256: str, watch: Watch) -> None:
        """Gives a finished file its name. What is there already stays, unless it has changed on disk."""
        place = self.local_path(sha256)
        if not place.parent.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            _sync(self.root)
        # The lock is against the garbage collector, which would delete an old blob just as it is stored again.
        with self._lock(fcntl.LOCK_SH):
            try:
                os.link(path, place)
            except FileExistsError:
                self._keep(path, place, watch)
        _sync(place.parent)

    def _keep(self, path: Path, place: Path, watch: Watch) -> None:
        try:
            self.verify(place.name, watch)
            os.utime(place)
        except Corrupt:
            os.replace(path, place)

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with (self.root / ".lock").open("ab") as lock:
            fcntl.flock(lock, kind)
            yield


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """What a file still holds, in pieces that fit in memory."""
    while chunk := file.read(CHUNK):
        yield chunk


def _age(path: Path) -> float:
    """Seconds since a file was last written or stored again; less than any limit if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_full() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno in _NO_SPACE:
            raise Full("the disk of the server is full: free some space and try again") from fault
        raise

"""From an untrusted .npz to plain .npy files in a cache: streamed in chunks, checked against every lie an archive can tell."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sparring.storage.zips import Malformed, Rejected, directory, stream, verify
from sparring.workers.errors import Refused, shown

HINT = "Write it with numpy.savez('data.npz', x=images, y=labels)."
MAX_BYTES = 64 << 30
"""Of all arrays together, unpacked."""
FREE_BYTES = 64 << 20
"""Below this size any ratio is allowed: a column of equal labels shrinks a thousandfold."""
MAX_RATIO = 200
TYPES = frozenset({"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "b1"})
HEADER = 16 << 10
RECORD = "unpacked.json"
_read: set[tuple[Path, int, int, int]] = set()
"""Files whose bytes this process has found to be right: place, inode, size and time of the last change."""


class Unpacked(NamedTuple):
    """Where the arrays of a dataset lie."""

    x: Path
    y: Path | None


def unpack(path: Path, cache: Path, sha256: str, *, verify: bool = True) -> Unpacked:
    """Unpack an .npz into `cache/<sha256>`, or find it there. Several processes may do so at once.

    The folder appears whole by one rename and records sizes and digests of its files; one that does not match is made again.
    The bytes are read for that once in each process; with `verify=False` only the sizes are looked at.
    Raises Refused (bad_data): malformed, unsafe_format, dtype, too_large.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"not a sha256 in hexadecimal: {shown(sha256)}")
    final = cache / sha256
    if found := _whole(final, verify):
        return found
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{sha256[:12]}-", dir=cache))
    try:
        _write(path, temporary)
        _publish(temporary, final, verify)
    except Rejected as error:
        raise Refused("bad_data", error.message, hint=error.hint or HINT, detail=error.code) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _whole(final, verify)
    if found is None:
        raise OSError(f"the unpacked dataset vanished from {cache}, or its disk does not keep what is written")
    return found


def _whole(folder: Path, verify: bool) -> Unpacked | None:
    """The arrays in a folder of the cache, if all of them are there in full; with `verify`, bit by bit."""
    try:
        written = json.loads((folder / RECORD).read_text())
        complete = all(_same(folder / name, told["size"], told["sha256"] if verify else None) for name, told in written.items())
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return None
    return Unpacked(folder / "x.npy", folder / "y.npy" if "y.npy" in written else None) if complete else None


def _same(path: Path, size: int, sha256: str | None) -> bool:
    """Whether a file has these bytes; only its size is looked at without a digest, or when this process has read it before."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = path, status.st_ino, status.st_size, status.st_mtime_ns
        if status.st_size != size:
            return False
        if sha256 is not None and key not in _read:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return False
            _read.add(key)
    return True


def _publish(temporary: Path, final: Path, verify: bool) -> None:
    """Move a finished folder to its place, unless another process was quicker; what is broken there makes way."""
    for _ in range(3):
        try:
            temporary.rename(final)
        except OSError:
            if _whole(final, verify):
                return
            with contextlib.suppress(FileNotFoundError):
                aside = Path(tempfile.mkdtemp(prefix=".broken-", dir=final.parent))
                final.rename(aside / "broken")
                shutil.rmtree(aside, ignore_errors=True)
        else:
            _sync(final.parent)
            return
    raise OSError(f"cannot put an unpacked dataset at {final}")


def _write(path: Path, folder: Path) -> None:
    members = directory(path)
    verify(path, members, frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}))
    if "x.npy" not in members:
        raise Malformed("the archive has no array x", HINT)
    if extra := sorted(members.keys() - {"x.npy", "y.npy"}):
        raise Malformed(f"the archive holds more than x and y: {shown(extra[0])}", HINT)
    total = sum(info.file_size for info in members.values())
    if total > min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * path.stat().st_size)):
        hint = f"At most {MAX_BYTES >> 30} GiB, and at most {MAX_RATIO} times the file's own size."
        raise Refused("bad_data", f"the arrays would take {total} bytes unpacked", hint=hint, detail="too_large")
    written = {}
    with zipfile.ZipFile(path) as archive:
        for name, info in members.items():
            written[name] = {"size": info.file_size, "sha256": _extract(archive, info, folder / name)}
    with (folder / RECORD).open("w") as file:
        json.dump(written, file)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> str:
    """One array to disk, its header checked before anything follows it. The archive's own bytes are kept; returns their sha256."""
    digest = hashlib.sha256()
    with contextlib.closing(stream(archive, info)) as chunks, target.open("w+b") as file:
        for first in chunks:
            file.write(first)
            digest.update(first)
            break
        _check_header(file, info)
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _check_header(file: BinaryIO, info: zipfile.ZipInfo) -> None:
    """The array's type must be a plain number, and its shape must account for every byte of the member."""
    name = info.filename
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(file, max_header_size=HEADER)
        header = file.tell()
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, TokenError) as error:
        raise Malformed(f"{name} is no sound array: {str(error)[:200]}", HINT) from error
    _check_type(name, dtype)
    size = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or len(shape) > 32 or header + size != info.file_size:
        message = f"{name} declares shape {shown(shape)} of {dtype.name}, {size} bytes, but has {info.file_size - header}"
        raise Malformed(message, "Upload the file again; it may have been cut off.")
    file.seek(0, os.SEEK_END)


def _check_type(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        message = f"{name} holds Python objects, which can only be unpickled, and unpickling runs code"
        raise Refused("bad_data", message, hint="Store numbers: numpy.stack(rows).", detail="unsafe_format")
    if dtype.str[1:] not in TYPES:
        hint = f"Store one of {', '.join(sorted(TYPES))}."
        raise Refused("bad_data", f"{name} is of type {shown(dtype.str)}", hint=hint, detail="dtype")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

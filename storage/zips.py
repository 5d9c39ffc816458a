"""Zip archives as strangers write them: the directory is checked against the bytes before anything is read."""

import stat
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO, ClassVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

MAX_DIRECTORY = 4 << 20
"""Bytes of the central directory: about 50,000 members."""
ENCRYPTED, STREAMED = 0x1, 0x8
CHUNK = 1 << 20


class Rejected(ValueError):
    """An upload that is not what it should be; `hint` says what to do about it."""

    code: ClassVar[str]

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep message and hint apart, for they travel in two fields."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class Malformed(Rejected):
    """Broken, cut off, or lying about itself."""

    code = "malformed"


class Unsafe(Rejected):
    """In a format that runs code when it is opened."""

    code = "unsafe_format"


def directory(path: Path) -> dict[str, ZipInfo]:
    """Members of a zip by name, after checking the directory alone.

    Raises Malformed if the directory is cut off, too large, does not end the file, or names a member twice (also: in
    another case), outside the archive, encrypted, as a folder or as a link.
    """
    _check_end(path)
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
    except (BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise Malformed(f"not a readable zip archive: {error}", "Upload the file again; it may have been cut off.") from error
    members: dict[str, ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        _check_entry(info)
        if info.filename.casefold() in seen:
            raise Malformed(f"the archive names the member {ascii(info.filename)[:80]} twice")
        seen.add(info.filename.casefold())
        members[info.filename] = info
    if not members:
        raise Malformed("the archive is empty")
    return members


def verify(path: Path, members: dict[str, ZipInfo], methods: frozenset[int] = frozenset({ZIP_STORED})) -> None:
    """Compare every member's own header with the directory; members may not overlap and the first begins the file.

    Raises Malformed on any difference and on compression methods not listed.
    """
    end = 0
    with path.open("rb") as file:
        for info in sorted(members.values(), key=lambda member: member.header_offset):
            if info.compress_type not in methods:
                hint = "Archives of this kind hold their members uncompressed; do not re-pack them."
                raise Malformed(f"member {ascii(info.filename)[:80]} is compressed", hint)
            if info.header_offset < end or (end == 0 and info.header_offset != 0):
                raise Malformed(f"member {ascii(info.filename)[:80]} overlaps another, or bytes stand before the archive")
            end = _check_local(file, info)
        if end > path.stat().st_size:
            raise Malformed("the archive is cut off")


def stream(archive: ZipFile, info: ZipInfo) -> Generator[bytes, None, None]:
    """A member's bytes in chunks of at most 1 MiB; exactly `info.file_size` of them, or Malformed."""
    left = info.file_size
    try:
        with archive.open(info) as member:
            while chunk := member.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
    except (BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        raise Malformed(f"member {ascii(info.filename)[:80]} cannot be read: {error}") from error
    if left:
        raise Malformed(f"member {ascii(info.filename)[:80]} is not as long as the directory says")


def _check_end(path: Path) -> None:
    """The directory must be small and reach, with its trailer, exactly to the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 22 - 20 - 56))
        tail = file.read()
    if tail[-22:-18] != b"PK\5\6":
        raise Malformed("the zip archive is cut off, or other bytes follow it", "Upload the file again.")
    disk, first, here, total, length, offset, comment = struct.unpack("<4H2LH", tail[-18:])
    trailer = 22
    if tail[-42:-38] == b"PK\6\7" and tail[-98:-94] == b"PK\6\6":
        here, total, length, offset = struct.unpack("<4Q", tail[-98 + 24 : -98 + 56])
        trailer = 98
    if disk or first or comment or here != total or offset + length + trailer != size:
        raise Malformed("the zip archive's directory does not describe this file", "Upload the file as it was written.")
    if length > MAX_DIRECTORY:
        raise Malformed(f"the zip archive's directory takes {length} bytes; at most {MAX_DIRECTORY} are read")


def _check_entry(info: ZipInfo) -> None:
    name = info.orig_filename
    shown = ascii(name)[:80]
    if name != info.filename or "\\" in name or "\0" in name or name.startswith("/") or ".." in name.split("/") or ":" in name:
        raise Malformed(f"the archive has a member with an unsafe name: {shown}")
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise Malformed(f"the archive has a folder or a link as a member: {shown}")
    if info.flag_bits & ENCRYPTED:
        raise Malformed(f"the member {shown} is encrypted")


def _check_local(file: BinaryIO, info: ZipInfo) -> int:
    """Offset of the first byte after the member's data."""
    shown = ascii(info.filename)[:80]
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise Malformed(f"the archive is cut off or damaged at member {shown}")
    _, flags, method, _, _, crc, packed, unpacked, name_length, extra_length = struct.unpack("<5H3L2H", header[4:])
    name, extra = file.read(name_length), file.read(extra_length)
    if packed == unpacked == 0xFFFFFFFF and extra[:4] == b"\1\0\x10\0" and len(extra) >= 20:
        unpacked, packed = struct.unpack("<2Q", extra[4:20])
    written = (crc, packed, unpacked)
    listed = (info.CRC, info.compress_size, info.file_size)
    later = bool(flags & STREAMED) and written == (0, 0, 0)
    encoding = "utf-8" if flags & 0x800 else "cp437"
    if method != info.compress_type or name != info.filename.encode(encoding, "replace") or not (later or written == listed):
        raise Malformed(f"the archive's directory and the member {shown} contradict each other")
    if info.compress_type == ZIP_STORED and info.compress_size != info.file_size:
        raise Malformed(f"the member {shown} lies about its size")
    return int(info.header_offset + 30 + name_length + extra_length + info.compress_size)

"""The .pt2 container: one root folder, listed record names only, every record stored as it is."""

import re
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import ZipFile

from sparring.storage.zips import Rejected, directory, stream, verify
from sparring.workers.errors import Refused, shown

MAX_JSON = 16 << 20
"""Bytes of a JSON record: torch.export writes about 2 KiB for each operation of a graph."""
MAX_VALUES = 1 << 20
"""Numbers, names, lists and so on in a JSON record, fields that are skipped included: parsed, each takes up to 400 bytes.

A ViT of 24 layers has about 80,000."""

_READ = re.compile(
    r"archive_format|archive_version|byteorder|models/model\.json|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/weights/weight_[0-9]{1,7}|data/constants/tensor_[0-9]{1,7}"
)
_IGNORED = re.compile(
    r"data/sample_inputs/model\.pt|\.data/[\w.\-]{1,60}|\.format_version|\.storage_alignment|version|extra/[\w./\-]{1,200}"
)
HINT = "Export the model with `sparring export`, or torch.export.export and torch.export.save."


def malformed(message: str) -> Refused:
    """A refusal: the file is broken or lies about itself."""
    return Refused("bad_model", message, hint=HINT, detail="malformed")


class Archive:
    """An open .pt2. Records are read by name without the root folder; nothing else of the file is ever opened."""

    def __init__(self, path: Path) -> None:
        """Open and check the container. Raises Refused (malformed, unsafe_format, unsupported)."""
        try:
            members = directory(path)
            verify(path, members)
        except Rejected as error:
            raise Refused("bad_model", error.message, hint=error.hint or HINT, detail=error.code) from error
        self._zip = ZipFile(path)
        roots = {name.partition("/")[0] for name in members}
        if len(roots) != 1:
            raise malformed(f"a .pt2 archive has one root folder, this one has {len(roots)}")
        self._records = {name.partition("/")[2]: info for name, info in members.items()}
        for name in self._records:
            self._check(name)
        self._check_kind()

    def __enter__(self) -> Self:
        """The archive itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._zip.close()

    def json(self, name: str) -> bytes:
        """A JSON record. Raises Refused if it is absent, damaged, or would take too much memory when it is parsed."""
        content = bytes(self.read(name, MAX_JSON))
        if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
            message = f"record {name} holds more than {MAX_VALUES} values"
            raise Refused("bad_model", message, hint="Upload a smaller model.", detail="too_large")
        return content

    def read(self, name: str, limit: int | None = None) -> bytearray:
        """A record's bytes. Raises Refused if it is absent, longer than `limit` bytes, or damaged."""
        info = self._records.get(name)
        if info is None or not _READ.fullmatch(name):
            raise malformed(f"the archive has no record {shown(name)}")
        if limit is not None and info.file_size > limit:
            raise Refused("bad_model", f"record {name} has {info.file_size} bytes; at most {limit} are read", detail="too_large")
        content = bytearray()
        try:
            for chunk in stream(self._zip, info):
                content += chunk
        except Rejected as error:
            raise malformed(error.message) from error
        return content

    def _check(self, name: str) -> None:
        if name.startswith("data/aotinductor/") or name.endswith(".so"):
            raise Refused("bad_model", "the archive carries compiled code (AOTInductor)", hint=HINT, detail="unsafe_format")
        if re.fullmatch(r"data/constants/(custom|opaque)_obj_\d+", name):
            message = f"the archive carries a pickled object, {shown(name)}; it is never opened"
            raise Refused("bad_model", message, hint="Export a model of tensors alone.", detail="unsafe_format")
        if not (_READ.fullmatch(name) or _IGNORED.fullmatch(name)):
            raise malformed(f"the archive has a record that does not belong in a .pt2: {shown(name)}")

    def _check_kind(self) -> None:
        for name, expected in (("archive_format", b"pt2"), ("archive_version", b"0"), ("byteorder", b"little")):
            if (given := bytes(self.read(name, 100))) != expected:
                message = f"record {name} says {given[:20]!r}; only {expected!r} is read"
                raise Refused("unsupported", message, hint=HINT, detail="archive_version")

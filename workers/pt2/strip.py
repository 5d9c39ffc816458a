"""Take out of a .pt2 what tells about the machine it was made on: torch.export writes source paths and lines of code into it."""

import json
import zipfile
from pathlib import Path

from sparring.storage.zips import directory, stream, verify


def strip(source: Path, target: Path) -> None:
    """Copy a .pt2 without the stack traces of its nodes. Raises Malformed if `source` is no sound archive."""
    members = directory(source)
    verify(source, members)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name, info in members.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            if name.partition("/")[2] == "models/model.json":
                new.writestr(entry, _without_traces(b"".join(stream(old, info))))
                continue
            with new.open(entry, "w", force_zip64=info.file_size >= 1 << 31) as record:
                for chunk in stream(old, info):
                    record.write(chunk)


def _without_traces(content: bytes) -> bytes:
    program = json.loads(content)
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"].pop("stack_trace", None)
    return json.dumps(program).encode()

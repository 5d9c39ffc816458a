"""report.zip: a report with all that is needed to check it elsewhere, each file with its digest."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from sparring.reports.pictures import PICTURES

BUNDLE = "report.zip"
MANIFEST = "manifest.json"
ARTIFACTS = ("report.json", "rows.csv", "examples.npz")
"""Of the files that a job left, those that belong into it."""
PAGE = "report.html"
EXTRA = (PAGE, PICTURES)
"""Those that belong into it where the job left them."""

_CHUNK = 1 << 20
_WHEN = (1980, 1, 1, 0, 0, 0)


def pack(job: str, files: Mapping[str, Path], dest: IO[bytes]) -> None:
    """Writes a manifest and the files, by the names that they are given, as a zip; the same files make the same bytes. Raises OSError."""
    manifest = {"version": 1, "job": job, "files": {name: _digest(path) for name, path in files.items()}}
    with zipfile.ZipFile(dest, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry(MANIFEST), json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        for name, path in files.items():
            entry = _entry(name)
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

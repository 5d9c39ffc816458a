"""report.zip: a report with all that is needed to check it elsewhere, each file with its digest."""

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

from sparring.contract.resources import JobInfo
from sparring.errors import UsageProblem
from sparring.sdk import Client

BUNDLE = "report.zip"
MANIFEST = "manifest.json"
ARTIFACTS = ("report.json", "rows.csv", "examples.npz")
_WHEN = (1980, 1, 1, 0, 0, 0)


def bundle(client: Client, job: JobInfo, dest: Path) -> None:
    """Write the report of a job with its rows, the broken rows as they were found, model and data to a zip.

    A model that is an endpoint is no file, and is left out.

    Raises:
        UsageProblem: `dest` cannot be written.
        ApiError: the model or the data have been deleted meanwhile.
    """
    report = client.jobs.report(job.id)
    with tempfile.TemporaryDirectory(prefix="sparring-bundle-") as name:
        folder = Path(name)
        files = [client.jobs.artifact(job.id, each, folder / each) for each in ARTIFACTS]
        if report.model.format != "endpoint":
            files.append(client.models.download(job.job.model, folder / f"model.{report.model.format}"))
        files.append(client.datasets.download(job.job.data, folder / f"data.{report.data.format}"))
        manifest = {"version": 1, "job": job.id, "files": {file.name: _digest(file) for file in files}}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _zip([folder / MANIFEST, *files], dest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zip(files: list[Path], dest: Path) -> None:
    """The same files make the same bytes; the target is whole or not there."""
    part = dest.with_name(f".{dest.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                entry = zipfile.ZipInfo(file.name, _WHEN)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.file_size = file.stat().st_size
                with file.open("rb") as source, archive.open(entry, "w") as target:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)
        part.replace(dest)
    except OSError as error:
        raise UsageProblem(f"{dest} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)

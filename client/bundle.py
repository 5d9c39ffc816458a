"""report.zip of a job at a service: everything fetched, then packed."""

import tempfile
from pathlib import Path

from sparring.contract.resources import JobInfo
from sparring.errors import UsageProblem
from sparring.reports.bundle import ARTIFACTS, BUNDLE, EXTRA, pack
from sparring.sdk import Client

__all__ = ["BUNDLE", "bundle"]


def bundle(client: Client, job: JobInfo, dest: Path) -> None:
    """Write the report of a job with its rows, the broken rows as they were found, model and data to a zip.

    A model that is an endpoint is no file, and is left out.

    Raises:
        UsageProblem: `dest` cannot be written.
        ApiError: the model or the data have been deleted meanwhile.
    """
    report = client.jobs.report(job.id)
    left = {each.name for each in job.artifacts}
    names = [*ARTIFACTS, *(name for name in EXTRA if name in left)]
    with tempfile.TemporaryDirectory(prefix="sparring-bundle-") as name:
        folder = Path(name)
        files = [client.jobs.artifact(job.id, each, folder / each) for each in names]
        if report.model.format != "endpoint":
            files.append(client.models.download(job.job.model, folder / f"model.{report.model.format}"))
        files.append(client.datasets.download(job.job.data, folder / f"data.{report.data.format}"))
        _write(job.id, files, dest)


def _write(job: str, files: list[Path], dest: Path) -> None:
    """The target is whole or not there."""
    part = dest.with_name(f".{dest.name}.part")
    try:
        with part.open("wb") as file:
            pack(job, {path.name: path for path in files}, file)
        part.replace(dest)
    except OSError as error:
        raise UsageProblem(f"{dest} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)

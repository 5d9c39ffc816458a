"""Reports with their rows, by the name of a report.zip or the id of a job."""

import csv
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from sparring import local
from sparring.contract.report import Report
from sparring.errors import SparringError, UsageProblem
from sparring.paths import absent, check_readable, kind_of
from sparring.reports.bundle import PAGE
from sparring.reports.compare import Told
from sparring.reports.pictures import PICTURES, Album
from sparring.reports.rows import outcomes, read_csv
from sparring.sdk import Client

LARGEST = 1 << 30
"""Bytes that a file of a report.zip may have."""


@contextmanager
def told(*names: str, pictures: bool = False) -> Iterator[tuple[Told, ...]]:
    """Each report that is named, with what was kept to be looked at if asked; a service is asked only where one is the id of a job.

    Raises:
        UsageProblem: a name is neither, or a file is no report.zip.
    """
    check(names)
    with ExitStack() as held:
        client = held.enter_context(local.service()) if any(map(is_job, names)) else None
        kept = held if pictures else None
        yield tuple(of_job(client, name, kept) if client and is_job(name) else of_zip(Path(name), kept) for name in names)


def check(names: Iterable[str]) -> None:
    """UsageProblem for a name that is neither the id of a job nor a file."""
    for name in names:
        if not is_job(name) and kind_of(Path(name)) != "file":
            raise UsageProblem(f"{name} {absent(kind_of(Path(name)))}", "Give a report.zip or the id of a job (job_…)")


def is_job(name: str) -> bool:
    """Whether it is written like the id of a job."""
    return bool(re.fullmatch(r"job_[0-9a-z]{20}", name))


def of_job(client: Client, job: str, held: ExitStack | None = None) -> Told:
    """The report of a job; with pictures for as long as `held` is open. SparringError where it contradicts its rows."""
    report = client.jobs.report(job)
    kept = held is not None and PICTURES in {each.name for each in client.jobs.get(job).artifacts}
    with tempfile.TemporaryDirectory(prefix="sparring-rows-") as folder:
        rows = client.jobs.artifact(job, "rows.csv", Path(folder) / "rows.csv").read_text(encoding="utf-8")
        album = client.jobs.artifact(job, PICTURES, Path(folder) / PICTURES).read_bytes() if kept else None
    try:
        return _told(report, rows, album, held)
    except (ValueError, csv.Error) as error:
        raise SparringError(f"What {job} left contradicts its report: {error}", "Run the evaluation again") from error


def of_zip(path: Path, held: ExitStack | None = None) -> Told:
    """The report in a report.zip; with pictures for as long as `held` is open. UsageProblem where it is none."""
    with _opened(path) as archive:
        report, rows = (_member(archive, name) for name in ("report.json", "rows.csv"))
        album = _member(archive, PICTURES) if held is not None and PICTURES in archive.namelist() else None
        return _told(Report.model_validate_json(report), rows.decode(), album, held)


def page_of_zip(path: Path) -> bytes | None:
    """The page in a report.zip; None in one of a version that left it out. UsageProblem where it is none."""
    with _opened(path) as archive:
        return _member(archive, PAGE) if PAGE in archive.namelist() else None


_WRITE = "Write it with `sparring report export JOB -o report.zip`"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """What is wrong with it, or with what is read from it, as a UsageProblem."""
    check_readable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if "report.json" not in archive.namelist():
                raise UsageProblem(f"{path} is no report.zip: there is no report in it", _WRITE)
            yield archive
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValidationError, ValueError, EOFError, csv.Error, RuntimeError) as error:
        raise UsageProblem(f"{path} is no report.zip: {str(error).splitlines()[0]}", _WRITE) from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is larger than {LARGEST >> 30} GiB")
    return archive.read(name)


def _told(report: Report, rows: str, album: bytes | None, held: ExitStack | None) -> Told:
    lines = read_csv(io.StringIO(rows, newline=""))
    opened = held.enter_context(Album(io.BytesIO(album))) if held is not None and album is not None else None
    return Told(report, outcomes(lines, report), lines, opened)

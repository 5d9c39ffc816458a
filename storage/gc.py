"""The garbage collector: deletes what no record refers to any more."""

import shutil
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine, select, union

from sparring.storage.artifacts import Folder
from sparring.storage.database import reading
from sparring.storage.tables import artifacts, datasets, jobs, models

GRACE = 24 * 3600.0
"""Seconds for which a blob is kept that no record refers to: its record may be about to be written."""


class Collected(NamedTuple):
    """What was deleted."""

    blobs: int
    tmp: int
    work: int


def collect(engine: Engine, folder: Folder, work: Path | None = None, *, grace: float = GRACE) -> Collected:
    """Deletes blobs without a record and unfinished uploads older than `grace` seconds, and the work folders of ended jobs."""
    # Listed before the jobs are asked for: the folder of a job that begins meanwhile is not among them.
    folders = [path for path in work.glob("job_*") if path.is_dir()] if work else []
    queries = [select(table.c.sha256) for table in (models, datasets, artifacts)]
    with reading(engine) as connection:
        kept = set(connection.scalars(union(*queries)))
        active = set(connection.scalars(select(jobs.c.id).where(jobs.c.state.in_(["queued", "running"]))))
    ended = [path for path in folders if path.name not in active]
    for path in ended:
        shutil.rmtree(path, ignore_errors=True)
    return Collected(folder.delete_unless(kept, grace), folder.sweep(grace), len(ended))

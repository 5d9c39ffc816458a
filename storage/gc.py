"""The garbage collector: deletes what no record refers to any more."""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import Engine, or_, select, union

from sparring.contract.states import FINAL
from sparring.storage.artifacts import Folder
from sparring.storage.database import now, reading
from sparring.storage.tables import artifacts, datasets, jobs, models

GRACE = 24 * 3600.0
"""Seconds for which things are kept that no record refers to: the record may be about to be written, or the job tried again."""


class Collected(NamedTuple):
    """What was deleted."""

    blobs: int
    tmp: int
    work: int
    cache: int


def collect(engine: Engine, folder: Folder, work: Path | None = None, cache: Path | None = None, *, grace: float = GRACE) -> Collected:
    """Deletes what is not needed, and has not been for `grace` seconds.

    These are blobs without a record, unfinished uploads, the work folders of jobs that have ended, and what was unpacked of
    datasets that are recorded no more (these last two at once when their record was deleted).
    """
    queries = [select(table.c.sha256) for table in (models, datasets, artifacts)]
    with reading(engine) as connection:
        kept = set(connection.scalars(union(*queries)))
    ended = _discard(work, r"job_\w+", lambda job: _needed(engine, job, grace), grace) if work else 0
    unpacked = _discard(cache, r"[0-9a-f]{64}", lambda sha256: _recorded(engine, sha256), grace) if cache else 0
    return Collected(folder.delete_unless(kept, grace), folder.sweep(grace), ended, unpacked)


def _needed(engine: Engine, job: str, grace: float) -> bool:
    """Whether a job is under way, or ended so recently that it may be tried again."""
    recent = or_(jobs.c.state.not_in(sorted(FINAL)), jobs.c.finished > now() - grace)
    with reading(engine) as connection:
        return connection.scalar(select(jobs.c.id).where(jobs.c.id == job, recent)) is not None


def _recorded(engine: Engine, sha256: str) -> bool:
    """Whether a dataset is recorded; that of a job under way always is."""
    with reading(engine) as connection:
        return connection.scalar(select(datasets.c.id).where(datasets.c.sha256 == sha256).limit(1)) is not None


def _discard(parent: Path, name: str, needed: Callable[[str], bool], grace: float) -> int:
    """Deletes the folders called like `name` that are not needed, and old temporary ones; returns how many of the former.

    Each is moved aside first, for who needs it from then on makes it anew; and put back if somebody has begun to need it
    before it was moved.
    """
    deleted = 0
    for path in parent.glob("*"):
        if path.name.startswith(".") and _age(path) > grace:
            shutil.rmtree(path, ignore_errors=True)
        if not re.fullmatch(name, path.name) or not path.is_dir() or needed(path.name):
            continue
        aside = path.with_name(f".gone-{uuid4().hex}")
        try:
            os.utime(path)  # or another collector would take it for an old temporary one
            path.rename(aside)
        except OSError:
            continue
        if needed(path.name) and _put_back(aside, path):
            continue
        shutil.rmtree(aside, ignore_errors=True)
        deleted += 1
    return deleted


def _put_back(aside: Path, path: Path) -> bool:
    try:
        aside.rename(path)
    except OSError:
        return False  # made anew meanwhile
    return True


def _age(path: Path) -> float:
    """Seconds since a folder was last changed; less than any limit if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")

"""Which earlier evaluations have kept what may break a model: those named, else those of the versions it comes from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, select

from sparring.contract.jobs import JOB, Evaluate, Job
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.threat import Threat
from sparring.storage.errors import Unfit
from sparring.storage.tables import artifacts, datasets, jobs, lineages, models

EXAMPLES = "examples.npz"
MOST = 4
"""Versions that are gone back: what broke an older one has broken a newer one too, or was trained against."""


class Kept(NamedTuple):
    """What an evaluation kept of its broken rows."""

    job: str
    threats: tuple[Threat, ...]
    """`threat` in the file counts these."""
    sha256: str


def resolved(connection: Connection, project: str, job: Job, model: ModelInfo, data: DatasetInfo) -> Job:
    """The job with the evaluations that are replayed written down.

    Raises:
        Unfit: one that is named has kept nothing, or is of other data.
    """
    if not isinstance(job, Evaluate) or "black" not in job.knowledge:
        return job
    if job.replay is None:
        found = tuple(_of_ancestors(connection, project, job, model, data))
        return job.model_copy(update={"replay": found}) if found else job
    for at, name in enumerate(job.replay):
        if _kept(connection, project, name, data.sha256) is None:
            raise Unfit(f"/replay/{at}", f"{name} is no evaluation of these data that has succeeded, so that it kept nothing to replay")
    return job


def kept(connection: Connection, project: str, names: Sequence[str], data: str) -> tuple[Kept, ...]:
    """What these evaluations kept; those that are forgotten meanwhile are left out."""
    return tuple(found for name in names if (found := _kept(connection, project, name, data)) is not None)


def _of_ancestors(connection: Connection, project: str, job: Evaluate, model: ModelInfo, data: DatasetInfo) -> Iterator[str]:
    """The newest evaluation of each version it comes from, the youngest version first."""
    parent, norms = model.lineage, {threat.norm for threat in job.threats}
    for _ in range(MOST):
        if parent is None:
            return
        for name in _evaluations(connection, project, parent.parent_sha256):
            found = _kept(connection, project, name, data.sha256)
            if found and norms & {threat.norm for threat in found.threats}:
                yield name
                break
        body = connection.scalar(select(lineages.c.body).where(lineages.c.model_id == parent.parent))
        parent = type(parent).model_validate_json(body) if body else None


def _evaluations(connection: Connection, project: str, model: str) -> list[str]:
    """Ids of the jobs on a model that have succeeded, the newest first."""
    query = select(jobs.c.id).join(models, models.c.id == jobs.c.model_id)
    query = query.where(jobs.c.project_id == project, models.c.sha256 == model, jobs.c.state == "succeeded")
    return list(connection.scalars(query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(20)))


def _kept(connection: Connection, project: str, name: str, data: str) -> Kept | None:
    query = (
        select(jobs.c.id, jobs.c.body, artifacts.c.sha256)
        .join(artifacts, artifacts.c.job_id == jobs.c.id)
        .join(datasets, datasets.c.id == jobs.c.data_id)
        .where(jobs.c.project_id == project, jobs.c.id == name, artifacts.c.name == EXAMPLES, datasets.c.sha256 == data)
    )
    row: RowMapping | None = connection.execute(query).mappings().first()
    job = JOB.validate_json(row["body"]) if row else None
    return Kept(row["id"], job.threats, row["sha256"]) if row and isinstance(job, Evaluate) else None

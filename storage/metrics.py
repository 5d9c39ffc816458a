"""Counts of what a project has, for those who watch over the service."""

from typing import NamedTuple

from sqlalchemy import Engine, func, select

from sparring.contract.states import State
from sparring.storage.database import now, reading
from sparring.storage.tables import datasets, deliveries, jobs, models


class Counts(NamedTuple):
    """What a project has at the moment."""

    jobs: dict[State, int]
    oldest: float
    """Seconds for which the job that is queued longest has been there; 0 where none is queued."""
    models: int
    datasets: int
    waiting: int
    """Messages to webhooks that have not arrived yet."""


def counts(engine: Engine, project: str) -> Counts:
    """All of them at one moment."""
    states = select(jobs.c.state, func.count()).where(jobs.c.project_id == project).group_by(jobs.c.state)
    oldest = select(now() - func.min(jobs.c.created)).where(jobs.c.project_id == project, jobs.c.state == "queued")
    with reading(engine) as connection:
        by_state = {row[0]: row[1] for row in connection.execute(states)}
        numbers = [
            connection.scalar(select(func.count()).select_from(table).where(table.c.project_id == project)) or 0
            for table in (models, datasets, deliveries)
        ]
        return Counts(by_state, max(0.0, connection.scalar(oldest) or 0.0), *numbers)

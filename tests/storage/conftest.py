"""Uploads and jobs to work with."""

from collections.abc import Callable
from hashlib import sha256

import pytest
from sqlalchemy import Engine, text

from sparring.contract.jobs import JOB, Job
from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import attempts, jobs, uploads
from sparring.storage.artifacts import Blob


def _blob(content: bytes) -> Blob:
    return Blob(sha256(content).hexdigest(), len(content))


@pytest.fixture
def model(engine: Engine) -> ModelInfo:
    return uploads.add_model(
        engine, project="default", name="net", blob=_blob(b"model"), format="pt2", spec=ModelSpec(mean=(0.5,), std=(0.25,))
    )


@pytest.fixture
def data(engine: Engine) -> DatasetInfo:
    return uploads.add_dataset(engine, project="default", name="digits", blob=_blob(b"data"), format="npz", spec=DataSpec(bounds=(0, 1)))


@pytest.fixture
def job(model: ModelInfo, data: DatasetInfo) -> Job:
    return JOB.validate_python({"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": "8/255"}]})


@pytest.fixture
def queued(engine: Engine, job: Job) -> JobInfo:
    """A job that waits for a worker."""
    return jobs.accept(engine, job)[0]


@pytest.fixture
def running(engine: Engine, queued: JobInfo) -> JobInfo:
    """A job that a worker holds for a minute."""
    assert attempts.claim(engine, queued.id, 1, worker="w", lease=60)
    return jobs.get(engine, "default", queued.id)


@pytest.fixture
def age(engine: Engine) -> Callable[..., None]:
    """`age(table, column, seconds)` moves a time in every row into the past: what a test would have to wait for."""

    def move(table: str, column: str, seconds: float) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = {column} - {seconds}"))

    return move

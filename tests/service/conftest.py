"""A real server over real HTTP with real records; Redis is away unless a test asks for it."""

import io
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from sparring.contract.resources import DatasetInfo, JobInfo, ModelInfo
from sparring.service.app import create_app
from sparring.storage import attempts, database, jobs, keys, tables
from sparring.storage.artifacts import Folder
from sparring.storage.settings import Settings

Eventually = Callable[[Callable[[], object]], Any]
"""Polls until a condition is true, and returns what it gave."""

# structlog's own default draws tracebacks with every local, which takes seconds.
structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@dataclass(frozen=True)
class Served:
    """A running server, seen from both sides."""

    url: str
    key: str
    settings: Settings
    engine: Engine
    http: httpx2.Client
    app: FastAPI

    @property
    def folder(self) -> Folder:
        return Folder(self.settings.artifacts)

    def client(self, key: str | None) -> httpx2.Client:
        """A client of its own, with another key or none."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=20)

    def stored(self) -> list[Path]:
        """Files among the artifacts, temporary ones included."""
        return [path for path in self.settings.artifacts.rglob("*") if path.is_file() and path.name != ".lock"]


@contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    engine = database.connect(settings.database)
    database.migrate(engine)
    key = keys.create(engine, project="default", name="tests").key
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app(settings)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
                yield Served(url, key, settings, engine, http, app)
        finally:
            server.should_exit = True
            thread.join()
            engine.dispose()


def settings_in(folder: Path, **changes: object) -> Settings:
    nobody = f"unix://{folder}/nobody.sock"
    return Settings.model_validate({"data": folder, "redis_url": nobody, "database_url": None, "max_upload": 1 << 20, **changes})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server of its own."""
    with serving(settings_in(tmp_path)) as one:
        yield one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests of a file that leave nothing behind that matters to another."""
    with serving(settings_in(tmp_path_factory.mktemp("shared"))) as one:
        yield one


def pt2() -> bytes:
    """The smallest zip that has the members by which a .pt2 is known."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/models/model.json", "{}")
    return file.getvalue()


def npz(y: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + y)
    return file.getvalue()


def upload_both(served: Served) -> tuple[ModelInfo, DatasetInfo]:
    model = served.http.post("/v1/models", content=pt2())
    data = served.http.post("/v1/datasets", content=npz())
    assert (model.status_code, data.status_code) == (201, 201), (model.text, data.text)
    return ModelInfo.model_validate(model.json()), DatasetInfo.model_validate(data.json())


def job_for(model: str, data: str, **changes: object) -> dict[str, object]:
    return {"kind": "evaluate", "model": model, "data": data, "threats": [{"norm": "linf", "eps": "8/255"}], **changes}


def submit(served: Served, **changes: object) -> JobInfo:
    model, data = upload_both(served)
    answer = served.http.post("/v1/jobs", json=job_for(model.id, data.id, **changes))
    assert answer.status_code == 202, answer.text
    return JobInfo.model_validate(answer.json())


def other_project(served: Served) -> httpx2.Client:
    """A client whose key belongs to another project."""
    with database.writing(served.engine) as connection:
        connection.execute(database.insert(connection, tables.projects).values(id="other", created=0.0).on_conflict_do_nothing())
    return served.client(keys.create(served.engine, project="other", name="stranger").key)


def complete(served: Served, job_id: str, files: dict[str, bytes]) -> JobInfo:
    """Plays the worker: claims the job and finishes it with these files."""
    attempt = jobs.get(served.engine, "default", job_id).attempt
    assert attempts.claim(served.engine, job_id, attempt, worker="test", lease=60)
    blobs = {name: served.folder.put([content]) for name, content in files.items()}
    assert attempts.finish(served.engine, job_id, attempt, state="succeeded", files=blobs)
    return jobs.get(served.engine, "default", job_id)

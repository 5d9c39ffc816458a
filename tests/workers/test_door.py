import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Engine

from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import jobs, uploads
from sparring.storage.artifacts import Blob
from sparring.storage.errors import Missing
from sparring.storage.settings import Settings
from sparring.workers import door


@pytest.fixture(autouse=True)
def found(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The door finds the records by the environment, as a dispatcher does."""
    monkeypatch.setenv("SPARRING_DATABASE_URL", database_url)


@pytest.fixture
def model(engine: Engine) -> ModelInfo:
    return uploads.add_model(engine, project="default", name="m", blob=Blob("a" * 64, 1), format="pt2", spec=ModelSpec())


@pytest.fixture
def data(engine: Engine) -> DatasetInfo:
    return uploads.add_dataset(engine, project="default", name="d", blob=Blob("b" * 64, 1), format="npz", spec=DataSpec())


@pytest.fixture
def body(model: ModelInfo, data: DatasetInfo) -> dict[str, Any]:
    return {"kind": "evaluate", "model": model.sha256, "data": data.id, "threats": [{"norm": "linf", "eps": "8/255"}]}


def test_a_job_is_taken_on(engine: Engine, body: dict[str, Any]) -> None:
    info = jobs.get(engine, "default", door.submit(body))
    assert (info.state, info.job.model, info.key) == ("queued", body["model"], None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threats": [{"norm": "linf", "eps": -1}]}, r"evaluate\.threats\.0\.eps: .*must not be negative"),
        ({"threats": []}, r"evaluate\.threats: .*at least 1"),
        ({"kind": "explode"}, r"job: .*'explode'"),
        ({"path": "/etc/passwd"}, r"evaluate\.path: there is no such word"),
        ({"model": "/etc/passwd"}, r"evaluate\.model: must be an id .* \(given '/etc/passwd'\)"),
    ],
)
def test_a_job_that_is_none_is_refused_in_words(engine: Engine, body: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"this is not a valid job: {said}"):
        door.submit({**body, **change})
    assert jobs.list_jobs(engine, "default", limit=1).items == ()


def test_a_job_for_nothing_is_refused_in_words(engine: Engine, body: dict[str, Any]) -> None:
    with pytest.raises(Missing, match="upload it first"):
        door.submit({**body, "model": "0" * 64})


def test_the_door_is_light_to_import() -> None:
    code = "import sys, sparring.workers.door; print([name for name in ('torch', 'numpy', 'fastapi', 'obstore') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_is_the_horse_s(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []
    monkeypatch.setattr("sparring.workers.horse.run", lambda *given: ran.append(given))
    door.run("job_1", 2)
    assert ran == [("job_1", 2)]

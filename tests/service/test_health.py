import subprocess
import sys
from pathlib import Path

from sparring.service.context import Context

from .conftest import Served, serving, settings_in


def test_alive_and_what_it_is(shared: Served) -> None:
    assert shared.http.get("/healthz").json() == {"status": "ok"}
    assert set(shared.http.get("/version").json()) == {"sparring", "python", "api"}


def test_degraded_without_the_queue(shared: Served) -> None:
    answer = shared.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["checks"]["database"]["ok"]
    assert not answer.json()["checks"]["queue"]["ok"]


def test_degraded_without_workers(tmp_path: Path, redis_url: str) -> None:
    with serving(settings_in(tmp_path, redis_url=redis_url)) as served:
        answer = served.http.get("/readyz").json()
    assert answer["status"] == "degraded"
    assert answer["checks"]["queue"] == {"ok": True, "detail": ""}
    assert answer["checks"]["workers"] == {"ok": False, "detail": "no live worker"}


def test_unavailable_without_the_records(served: Served) -> None:
    served.engine.dispose()
    for file in served.settings.data.glob("records.db*"):
        file.unlink()
    (served.settings.data / "records.db").mkdir()
    app_engine_drops_its_connections(served)
    answer = served.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert served.http.get("/healthz").status_code == 200
    models = served.http.get("/v1/models")
    assert (models.status_code, models.json()["type"]) == (503, "urn:sparring:problem:database-unavailable")
    assert models.headers["Retry-After"] == "2"


def app_engine_drops_its_connections(served: Served) -> None:
    context: Context = served.app.state.context
    context.engine.dispose()


def test_the_service_loads_no_models_and_draws_nothing() -> None:
    heavy = ("torch", "numpy", "matplotlib", "pyarrow", "onnx", "onnxruntime", "scipy", "PIL")
    code = f"import sys, sparring.service.api; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

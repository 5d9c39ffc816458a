"""The same API over PostgreSQL, where it might differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Served, complete, serving, settings_in, submit


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: Any) -> Iterator[Served]:
    with postgres.new_database() as url, serving(settings_in(tmp_path_factory.mktemp("pg"), database_url=url)) as served:
        yield served


def test_from_upload_to_report(on_postgres: Served, tmp_path: Path) -> None:
    job = submit(on_postgres)
    complete(on_postgres, job.id, {"report.json": b"{}"})
    assert on_postgres.http.get(f"/v1/jobs/{job.id}/report").content == b"{}"
    assert "succeeded" in on_postgres.http.get(f"/v1/jobs/{job.id}/events").text
    assert on_postgres.http.get("/readyz").json()["checks"]["database"]["ok"]
    assert not (on_postgres.settings.data / "records.db").exists()


@pytest.mark.parametrize("path", ["/v1/jobs/%00", "/v1/models/a%00b", "/v1/jobs?cursor=MHgxcDAgAA==", "/v1/jobs/%00/events"])
def test_what_its_texts_cannot_hold(on_postgres: Served, path: str) -> None:
    answer = on_postgres.http.get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_when_it_goes_away(on_postgres: Served, postgres: Any) -> None:
    with postgres._admin() as admin:
        admin.execute(f"DROP DATABASE {on_postgres.engine.url.database} WITH (FORCE)")
    answer = on_postgres.http.get("/v1/models")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:sparring:problem:database-unavailable")
    assert on_postgres.http.get("/readyz").status_code == 503

"""Requests made from the API's own description, right ones and wrong ones: no answer may contradict it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks

from sparring.service.app import create_app
from sparring.storage.settings import Settings

from .conftest import Served, complete, serving, settings_in, submit

schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
load_all_checks()
# No schema can say that a cursor was given out, that a model was uploaded, that a file is one, or that a date lies ahead.
UNSAYABLE = CHECKS.get_by_names(["positive_data_acceptance"])


@pytest.fixture(scope="module")
def peopled(tmp_path_factory: pytest.TempPathFactory, _shared_redis: Any) -> Iterator[Served]:
    """A server that has something to list, with a queue."""
    folder: Path = tmp_path_factory.mktemp("peopled")
    with serving(settings_in(folder, redis_url=_shared_redis.url)) as served:
        complete(served, submit(served).id, {"report.json": b"{}", "report.html": b"<p>"})
        submit(served)
        yield served


@schema.parametrize()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_no_answer_contradicts_the_description(case: schemathesis.Case, peopled: Served) -> None:
    case.call_and_validate(base_url=peopled.url, headers={"Authorization": f"Bearer {peopled.key}"}, excluded_checks=UNSAYABLE)


@(
    schema.include(method="GET", path_regex=r"\{(job|model|dataset)_id\}")
    .exclude(path_regex="report|rows|npz|artifacts/|events|content")
    .parametrize()
)
@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_what_is_there_is_told_as_described(case: schemathesis.Case, peopled: Served) -> None:
    (name,) = case.path_parameters
    listed = peopled.http.get(f"/v1/{name.removesuffix('_id')}s").json()["items"]
    url = case.operation.path.replace(f"{{{name}}}", listed[-1]["id"])
    answer = peopled.http.get(url)
    assert answer.status_code == 200
    case.operation.validate_response(schemathesis.Response.from_any(answer))

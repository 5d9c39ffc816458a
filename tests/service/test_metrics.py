"""What monitoring reads, parsed as Prometheus parses it."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from sparring.contract.jobs import JOB
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import attempts, jobs, uploads, webhooks
from sparring.storage.artifacts import Blob

from .conftest import Served, other_project, serving, settings_in

OPEN = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def work(served: Served) -> None:
    """Three jobs: one has succeeded, two wait; a webhook has not been told yet."""
    model = uploads.add_model(served.engine, project="default", name="m", blob=Blob("a" * 64, 1), format="pt2", spec=ModelSpec())
    data = uploads.add_dataset(served.engine, project="default", name="d", blob=Blob("b" * 64, 1), format="npz", spec=DataSpec())
    webhooks.create(served.engine, project="default", url="https://ci.example.com/")
    body = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": 0.1}]}
    job, *_ = [jobs.accept(served.engine, JOB.validate_python(body))[0] for _ in range(3)]
    attempts.claim(served.engine, job.id, 1, worker="w", lease=60)
    attempts.finish(served.engine, job.id, 1, state="succeeded")


@pytest.mark.parametrize(
    ("accept", "kind", "parse"), [(OPEN, "application/openmetrics-text", openmetrics), ("*/*", "text/plain", prometheus)]
)
def test_what_a_project_has_is_counted_in_the_form_that_is_asked_for(served: Served, accept, kind, parse) -> None:
    work(served)
    answer = served.http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    found = {(one.name, *one.labels.values()): one.value for family in parse(answer.text) for one in family.samples}
    states = {key[1]: value for key, value in found.items() if key[0] == "sparring_jobs"}
    assert states == {"queued": 2, "running": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "timed_out": 0}
    names = ("sparring_models", "sparring_datasets", "sparring_webhook_messages_waiting", "sparring_queue_up")
    assert [found[name,] for name in names] == [1, 1, 1, 0]
    assert found["sparring_oldest_queued_seconds",] >= 0


def test_a_key_counts_its_own_project_alone_and_nobody_without_one(served: Served) -> None:
    work(served)
    with other_project(served) as stranger:
        assert 'sparring_jobs{state="queued"} 0.0' in stranger.get("/metrics").text
    with served.client(None) as nobody:
        assert nobody.get("/metrics").status_code == 401


def test_a_queue_that_answers_is_up_and_served_by_nobody(tmp_path: Path, redis_url: str) -> None:
    with serving(settings_in(tmp_path, redis_url=redis_url)) as served:
        text = served.http.get("/metrics").text
    assert "sparring_queue_up 1.0" in text
    assert 'sparring_queue_served{queue="cpu"} 0.0' in text

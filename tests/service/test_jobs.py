import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparring.contract.states import Reason
from sparring.storage import attempts, jobs

from .conftest import Served, complete, job_for, other_project, serving, settings_in, submit, upload_both


def test_a_job_is_taken_on_though_the_queue_is_away(served: Served) -> None:
    model, data = upload_both(served)
    answer = served.http.post("/v1/jobs", json=job_for(model.id, data.id))
    assert answer.status_code == 202
    info = answer.json()
    assert info["state"] == "queued"
    assert answer.headers["Location"] == f"/v1/jobs/{info['id']}"
    note = served.http.get(answer.headers["Location"]).json()["note"]
    assert "queue cannot be reached" in note
    assert served.http.get("/v1/jobs").json()["items"][0]["note"] == note


def test_a_redis_that_never_answers_makes_nobody_wait(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with serving(settings_in(tmp_path, redis_url=url)) as served:
            model, data = upload_both(served)
            served.http.timeout = 3
            job = served.http.post("/v1/jobs", json=job_for(model.id, data.id))
            assert job.status_code == 202
            for path in (job.headers["Location"], "/v1/jobs"):
                assert "queue cannot be reached" in served.http.get(path).text
            assert served.http.get("/readyz").json()["status"] == "degraded"
            assert served.http.get("/v1/workers").status_code == 503


def test_one_key_is_one_job_even_for_twenty_at_once(served: Served) -> None:
    model, data = upload_both(served)
    body = job_for(model.id, data.id)

    def post(_: int) -> tuple[int, str]:
        with served.client(served.key) as client:
            answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "release 1.2"})
            return answer.status_code, answer.json().get("id", answer.text)

    with ThreadPoolExecutor(20) as threads:
        answers = set(threads.map(post, range(20)))
    assert len(answers) == 1
    ((status, job),) = answers
    assert status == 202
    found = served.http.get("/v1/jobs", params={"key": "release 1.2"}).json()["items"]
    assert [one["id"] for one in found] == [job]
    assert len(served.http.get("/v1/jobs").json()["items"]) == 1

    reused = served.http.post("/v1/jobs", json={**body, "seed": 1}, headers={"Idempotency-Key": "release 1.2"})
    assert reused.status_code == 422
    assert reused.json()["type"] == "urn:sparring:problem:idempotency-key-reused"
    with other_project(served) as stranger:
        assert stranger.get("/v1/jobs", params={"key": "release 1.2"}).json()["items"] == []


def test_a_known_key_answers_even_when_the_model_is_gone(served: Served) -> None:
    model, data = upload_both(served)
    body, key = job_for(model.id, data.id), {"Idempotency-Key": "k"}
    first = served.http.post("/v1/jobs", json=body, headers=key).json()["id"]
    served.http.post(f"/v1/jobs/{first}/cancel")
    assert served.http.delete(f"/v1/models/{model.id}").status_code == 204
    assert served.http.post("/v1/jobs", json=body, headers=key).json()["id"] == first


@pytest.mark.parametrize("key", ["", "a" * 201, "käse", "tab\there"])
def test_a_bad_key_is_refused(shared: Served, key: str) -> None:
    body = job_for("mdl_" + "0" * 20, "dat_" + "0" * 20)
    answer = shared.http.post("/v1/jobs", json=body, headers=[(b"Idempotency-Key", key.encode())])
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["pointer"] == "/idempotency-key"


def test_unknown_model_and_data_are_both_named(shared: Served) -> None:
    answer = shared.http.post("/v1/jobs", json=job_for("mdl_" + "0" * 20, "f" * 64))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:sparring:problem:unknown-reference"
    assert [fault["pointer"] for fault in answer.json()["problems"]] == ["/model", "/data"]


def test_whatever_else_a_job_needs_is_named_where_it_stands(served: Served) -> None:
    model, data = upload_both(served)
    attack = {"kind": "transfer", "models": [model.id, "mdl_" + "0" * 20]}
    body = job_for(model.id, data.id) | {"attacks": [attack], "training": "dat_" + "0" * 20}
    body.pop("suite", None)
    answer = served.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["problems"]] == ["/training", "/attacks/0/models/1"]
    retraining = {"kind": "retrain", "model": model.id, "data": data.id}
    answer = served.http.post("/v1/jobs", json=retraining | {"defenses": [{"kind": "ensemble", "models": attack["models"]}]})
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["problems"]] == ["/defenses/0/models/1"]
    answer = served.http.post("/v1/jobs", json=retraining | {"defenses": [{"kind": "ensemble"}]})
    assert answer.status_code == 422
    assert "ensemble has no surrogate: upload other models" in answer.text


def test_models_can_be_named_by_digest_and_jobs_listed_by_state(served: Served) -> None:
    model, data = upload_both(served)
    assert served.http.post("/v1/jobs", json=job_for(f"sha256:{model.sha256}", data.sha256)).status_code == 202
    assert len(served.http.get("/v1/jobs?state=queued").json()["items"]) == 1
    assert served.http.get("/v1/jobs?state=running").json()["items"] == []
    assert served.http.get("/v1/jobs?state=asleep").status_code == 422


def test_cancel_retry_and_delete_only_where_they_make_sense(served: Served) -> None:
    url = f"/v1/jobs/{submit(served).id}"
    assert served.http.delete(url).json()["type"] == "urn:sparring:problem:not-final"
    assert served.http.post(f"{url}/retry").status_code == 409
    cancelled = served.http.post(f"{url}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert served.http.post(f"{url}/cancel").json()["type"] == "urn:sparring:problem:already-final"
    retried = served.http.post(f"{url}/retry").json()
    assert (retried["state"], retried["attempt"]) == ("queued", 2)
    served.http.post(f"{url}/cancel")
    assert served.http.delete(url).status_code == 204
    assert served.http.get(url).status_code == 404


def test_another_project_cannot_touch_a_job(served: Served) -> None:
    job = complete(served, submit(served).id, {"report.json": b"{}"})
    with other_project(served) as stranger:
        for path in ("", "/report", "/report.html", "/rows.parquet", "/artifacts", "/artifacts/report.json", "/events"):
            assert stranger.get(f"/v1/jobs/{job.id}{path}").status_code == 404, path
        for path in ("/cancel", "/retry"):
            assert stranger.post(f"/v1/jobs/{job.id}{path}").status_code == 404, path
        assert stranger.delete(f"/v1/jobs/{job.id}").status_code == 404
        assert stranger.get("/v1/jobs").json()["items"] == []
        foreign = stranger.post("/v1/jobs", json=job_for(job.job.model, job.job.data))
        assert [fault["pointer"] for fault in foreign.json()["problems"]] == ["/model", "/data"]


def test_the_reason_of_a_failure_is_shown(served: Served) -> None:
    job = submit(served)
    assert attempts.claim(served.engine, job.id, 1, worker="w", lease=60)
    reason = Reason(code="bad_model", message="it has no output", hint="export it again")
    assert attempts.finish(served.engine, job.id, 1, state="failed", reason=reason)
    assert served.http.get(f"/v1/jobs/{job.id}").json()["reason"] == reason.model_dump()
    report = served.http.get(f"/v1/jobs/{job.id}/report")
    assert report.status_code == 409
    assert report.json()["type"] == "urn:sparring:problem:no-report"
    assert "it has no output" in report.json()["detail"]
    assert report.json()["hint"] == "export it again"


def test_a_queued_job_says_that_no_worker_lives(tmp_path: Path, redis_url: str) -> None:
    with serving(settings_in(tmp_path, redis_url=redis_url)) as served:
        for device in ("cpu", "gpu"):
            job = submit(served, device=device)
            assert served.http.get(f"/v1/jobs/{job.id}").json()["note"] == f"no live worker on sparring:{device}"
        jobs.cancel(served.engine, "default", job.id)
        assert served.http.get(f"/v1/jobs/{job.id}").json()["note"] == ""
        assert served.http.get("/v1/workers").json() == []

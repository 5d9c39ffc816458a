import json
from typing import Any

import pytest

from sparring.service.problems import MEDIA_TYPE, Fault, invalid

from .conftest import Served, job_for, pt2

MODEL, DATA = "mdl_" + "0" * 20, "dat_" + "0" * 20


def told(answer: Any, status: int, code: str) -> dict[str, Any]:
    """The problem of an answer, which must have this status and type."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:sparring:problem:{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def test_unknown_routes_and_methods(shared: Served) -> None:
    assert "/v1/nothing" in told(shared.http.get("/v1/nothing"), 404, "not-found")["detail"]
    assert "/openapi.json" in told(shared.http.get("/docs"), 404, "not-found")["hint"]
    answer = shared.http.put("/v1/jobs")
    told(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.parametrize(
    "path", ["/v1/models/..%2f..%2fetc%2fpasswd", "/v1/jobs/%00", "/v1/jobs/x/artifacts/..%2f..%2frecords.db", "/v1/attacks/%F0%9F%92%A9"]
)
def test_strange_paths_lead_nowhere(shared: Served, path: str) -> None:
    told(shared.http.get(path), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe{}",
        b"{'kind': 1}",
        b'{"a": "\xe4"}',
        b"[" * 100_000,
        b'{"seed": ' + b"9" * 10_000 + b"}",
    ],
    ids=["cut", "bom", "quotes", "latin-1", "deep", "long number"],
)
def test_what_is_no_json(shared: Served, body: bytes) -> None:
    answer = shared.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    told(answer, 400, "malformed-json")


def test_json_must_be_called_json(shared: Served) -> None:
    for headers in ({"Content-Type": "text/plain"}, {}):
        answer = shared.http.post("/v1/jobs", content=json.dumps(job_for(MODEL, DATA)).encode(), headers=headers)
        assert "application/json" in told(answer, 415, "unsupported-media-type")["hint"]


def test_a_job_of_a_megabyte_is_too_large(shared: Served) -> None:
    told(shared.http.post("/v1/jobs", json={"kind": "x" * (1 << 20)}), 413, "too-large")


def broken(**changes: object) -> dict[str, object]:
    return {**job_for(MODEL, DATA), **changes}


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, [""]),
        ([], [""]),
        (7, [""]),
        ({"kind": "destroy"}, [""]),
        ({"kind": "evaluate"}, ["/model", "/data", "/threats"]),
        (broken(colour="red"), ["/colour"]),
        (broken(model="../../etc/passwd"), ["/model"]),
        (broken(threats=[]), ["/threats"]),
        (broken(threats=[{"norm": "linf", "eps": -1}]), ["/threats/0/eps"]),
        (broken(threats=[{"norm": "linf", "eps": "8/0"}, {"norm": "l7", "eps": 1}]), ["/threats/0/eps", "/threats/1/norm"]),
        (broken(attacks=[{"kind": "pgd", "steps": 10**9, "pgd": 1}]), ["/attacks/0/steps", "/attacks/0/pgd"]),
        (broken(attacks=[{"kind": "nuke"}]), ["/attacks/0"]),
        (broken(threats=[{"norm": "l2", "eps": 1}], attacks=[{"kind": "fgsm"}]), ["/attacks/0"]),
        (broken(attacks=[{"kind": "fgsm"}], suite="quick"), [""]),
        (broken(seed=2**63), ["/seed"]),
        (broken(rows=1.5), ["/rows"]),
        (broken(**{"a/b~c": 1}), ["/a~1b~0c"]),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_every_fault_is_pointed_at(shared: Served, body: object, pointers: list[str]) -> None:
    problem = told(shared.http.post("/v1/jobs", json=body), 422, "invalid-request")
    assert [fault["pointer"] for fault in problem["problems"]] == pointers
    for fault in problem["problems"]:
        assert fault["where"] == "body"
        name = fault["pointer"].rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        assert name in fault["message"] or not fault["pointer"]
    assert problem["problems"][0]["message"] in problem["detail"]


@pytest.mark.parametrize(
    ("body", "said", "hint"),
    [
        (
            broken(attacks=[{"kind": "nuke"}]),
            "attacks.0: there is no 'nuke': give one of noise, fgsm, ",
            "GET /v1/attacks lists the attacks",
        ),
        (
            broken(model="../../etc/passwd"),
            "model: must be an id (mdl_… or dat_… with 20 letters and digits) or a sha256 (given '../../etc/",
            "/v1/models",
        ),
        (broken(data=7), "data: must be a text (given 7)", "GET /v1/datasets lists"),
        (broken(suite="big"), "suite: must be 'quick', 'standard', 'thorough', 'levels' or 'defended' (given 'big')", "GET /v1/suites"),
        (broken(replay=["x"]), "replay.0: must be the id of a job (job_… with 20 letters and digits) (given 'x')", "GET /v1/jobs"),
        (broken(rows=0), "rows: must be greater than or equal to 1 (given 0)", "GET /openapi.json describes every field"),
        (broken(colour="red"), "colour: there is no such word here: look at its spelling, or leave it out", "/openapi.json"),
        ({"kind": "destroy"}, "there is no 'destroy': give one of evaluate, craft, retrain, certify", "/openapi.json"),
        (broken(model="x" * 1000), f"(given '{'x' * 79}…)", "/v1/models"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_fault_tells_what_was_given_what_may_stand_there_and_where_to_look(shared: Served, body: object, said: str, hint: str) -> None:
    problem = told(shared.http.post("/v1/jobs", json=body), 422, "invalid-request")
    assert said in problem["detail"]
    assert hint in problem["hint"]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(shared: Served, literal: str) -> None:
    body = json.dumps(broken(threats=[{"norm": "linf", "eps": 0.5}], other=1)).replace("0.5", literal)
    problem = told(
        shared.http.post("/v1/jobs", content=body.encode(), headers={"Content-Type": "application/json"}), 422, "invalid-request"
    )
    assert [fault["pointer"] for fault in problem["problems"]] == ["/threats/0/eps", "/other"]


def test_several_faults_are_counted() -> None:
    problem = invalid(Fault("body", "/a/0", "is odd"), Fault("body", "", "is late"))
    assert problem.detail == "a.0: is odd (and 1 more)"


def test_a_request_id_is_kept_or_made(shared: Served) -> None:
    assert shared.http.get("/healthz", headers={"X-Request-Id": "build-7.2"}).headers["X-Request-Id"] == "build-7.2"
    made = shared.http.get("/nothing", headers={"X-Request-Id": "two words"}).headers["X-Request-Id"]
    assert made.isalnum()
    assert shared.http.get("/nothing").headers["X-Request-Id"] != made


def test_a_range_no_file_has(served: Served) -> None:
    info = served.http.post("/v1/models", content=pt2()).json()
    content = f"/v1/models/{info['id']}/content"
    part = served.http.get(content, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"PK\x03\x04")
    answer = served.http.get(content, headers={"Range": "bytes=999999-"})
    told(answer, 416, "range-not-satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{info['size']}"
    told(served.http.get(content, headers={"Range": "apples"}), 400, "bad-request")

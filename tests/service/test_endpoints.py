"""Endpoints registered over HTTP, and jobs on them."""

import hashlib
import json
from typing import Any

import pytest

from sparring.contract.endpoints import ENDPOINT
from sparring.contract.jobs import JOB
from sparring.storage import jobs as stored_jobs
from sparring.storage.errors import Unfit

from .conftest import Served, job_for, npz, other_project

ALLOWED = "http://127.0.0.1:9000"
ENDPOINT_JSON = {"kind": "endpoint", "url": f"{ALLOWED}/predict", "response": "/scores"}


def allow(served: Served, *grants: dict[str, Any]) -> None:
    served.settings.grants.write_text(json.dumps({"default": grants or [{"origin": ALLOWED, "secrets": {"TOKEN": "Bearer s3cr3t"}}]}))


def register(served: Served, query: str = "", **given: Any) -> Any:
    return served.http.post(f"/v1/models{query}", json=ENDPOINT_JSON | given)


def test_an_endpoint_is_a_model_like_others(served: Served) -> None:
    allow(served)
    answer = register(served, "?name=mine&classes=10&mean=0.5&std=0.5", headers={"Authorization": "secret:TOKEN"})
    assert answer.status_code == 201, answer.text
    info = answer.json()
    assert (info["name"], info["format"], info["spec"]["classes"], info["spec"]["mean"]) == ("mine", "endpoint", 10, [0.5])
    assert info["spec"]["endpoint"]["headers"] == {"Authorization": "secret:TOKEN"}
    assert "s3cr3t" not in answer.text
    assert served.http.get(answer.headers["Location"]).json() == info
    content = served.http.get(f"/v1/models/{info['id']}/content")
    assert hashlib.sha256(content.content).hexdigest() == info["sha256"]
    assert ENDPOINT.validate_json(content.content).model_dump(mode="json") == info["spec"]["endpoint"]
    assert ".json" in content.headers["Content-Disposition"]
    spelled = served.http.post(
        "/v1/models", content=json.dumps(info["spec"]["endpoint"], indent=4), headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )
    assert spelled.json()["sha256"] == info["sha256"], "one spelling"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9001/predict",
        "http://localhost:9000/predict",
        "http://2130706433:9000/predict",
        "http://0x7f000001:9000/predict",
        "http://0177.0.0.1:9000/predict",
        "http://127.1:9000/predict",
        "http://[::1]:9000/predict",
        "http://[::ffff:127.0.0.1]:9000/predict",
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/",
        "https://127.0.0.1:9000/predict",
        "https://example.com/",
    ],
)
def test_what_is_not_allowed_is_refused(served: Served, url: str) -> None:
    allow(served)
    answer = register(served, url=url)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sparring:problem:target_forbidden")
    assert "not among the endpoints" in answer.json()["detail"]
    assert "operator" in answer.json()["hint"]
    assert served.stored() == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"])
def test_a_name_that_leads_to_a_forbidden_address_is_refused_though_it_is_listed(served: Served, host: str) -> None:
    allow(served, {"origin": f"http://{host}:9000"})
    answer = register(served, url=f"http://{host}:9000/predict")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sparring:problem:target_forbidden")
    assert "no public address" in answer.json()["detail"]


def test_a_project_has_a_list_of_its_own(served: Served) -> None:
    allow(served)
    with other_project(served) as stranger:
        answer = stranger.post("/v1/models", json=ENDPOINT_JSON)
    assert answer.json()["type"] == "urn:sparring:problem:target_forbidden"


def test_nothing_is_allowed_without_a_list(served: Served) -> None:
    assert register(served).json()["type"] == "urn:sparring:problem:target_forbidden"


@pytest.mark.parametrize(
    ("query", "given", "where", "pointer"),
    [
        ("", {"url": "file:///etc/passwd"}, "body", "/url"),
        ("", {"url": "http://user:pw@127.0.0.1:9000/"}, "body", "/url"),
        ("", {"headers": {"Authorization": "Bearer s3cr3t"}}, "body", "/headers"),
        ("", {"colour": "red"}, "body", "/colour"),
        ("", {"batch": 0}, "body", "/batch"),
        ("", {"kind": "grpc"}, "body", ""),
        ("", {"request": {"x": 1}}, "body", "/request"),
        ("?arch=cnn", {}, "query", "/arch"),
        ("?endpoint=x", {}, "query", "/endpoint"),
        ("", {"gives": "labels"}, "query", "/classes"),
    ],
)
def test_every_fault_is_named(served: Served, query: str, given: dict[str, Any], where: str, pointer: str) -> None:
    allow(served)
    answer = register(served, query, **given)
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["problems"]
    assert (fault["where"], fault["pointer"]) == (where, pointer), fault
    assert "s3cr3t" not in answer.text
    assert served.stored() == []


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[" * 5000, 400), (b"\xff", 400), (b"", 400), (b" " * (1 << 20) + b"{}", 413)])
def test_what_is_no_json_is_refused(served: Served, body: bytes, status: int) -> None:
    answer = served.http.post("/v1/models", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert served.stored() == []


def test_a_digest_that_does_not_match_stores_nothing(served: Served) -> None:
    allow(served)
    assert register(served, f"?sha256={'0' * 64}").json()["type"] == "urn:sparring:problem:digest-mismatch"
    assert served.stored() == []


@pytest.mark.parametrize(
    ("gives", "changes", "pointer", "said"),
    [
        ("scores", {"attacks": [{"kind": "noise"}, {"kind": "pgd"}]}, "/attacks/1", "pgd needs a gradient"),
        ("labels", {"attacks": [{"kind": "square"}]}, "/attacks/0", "square needs a score"),
        ("scores", {"suite": "quick", "knowledge": ["white"]}, "/threats/0", "every attack of the suite"),
    ],
)
def test_a_job_that_needs_more_is_refused_at_once(served: Served, gives: str, changes: dict[str, Any], pointer: str, said: str) -> None:
    allow(served)
    model = register(served, "?classes=10", gives=gives).json()["id"]
    data = served.http.post("/v1/datasets", content=npz()).json()["id"]
    job = job_for(model, data, **changes)
    answer = served.http.post("/v1/jobs", json=job)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sparring:problem:unfit")
    (fault,) = answer.json()["problems"]
    assert (fault["where"], fault["pointer"]) == ("body", pointer)
    assert said in fault["message"]
    with pytest.raises(Unfit, match=said):
        stored_jobs.accept(served.engine, JOB.validate_python(job))


def test_a_job_of_black_box_attacks_is_taken_with_its_budget(served: Served) -> None:
    allow(served)
    model = register(served).json()["id"]
    data = served.http.post("/v1/datasets", content=npz()).json()["id"]
    for changes in ({"attacks": [{"kind": "square"}], "budget": {"asked": 500, "sent": 600}}, {"suite": "standard"}):
        answer = served.http.post("/v1/jobs", json=job_for(model, data, **changes))
        assert answer.status_code == 202, answer.text
        assert answer.json()["job"]["budget"] == changes.get("budget")

"""Webhooks over HTTP: made, listed, removed; where nothing is ever posted is refused at once."""

import json

import pytest

from sparring.contract.webhooks import NewWebhook, WebhookInfo
from sparring.storage import webhooks

from .conftest import Served, other_project

LISTED = "http://127.0.0.1:9999"


def test_a_webhook_from_making_to_removing(served: Served) -> None:
    served.settings.grants.write_text(json.dumps({"default": [{"origin": LISTED}]}))
    answer = served.http.post("/v1/webhooks", json={"url": f"{LISTED}/hook"})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    made = NewWebhook.model_validate(answer.json())
    assert made.secret.startswith("whsec_")
    listed = served.http.get("/v1/webhooks")
    assert [WebhookInfo.model_validate(one).id for one in listed.json()] == [made.id]
    assert made.secret not in listed.text
    with other_project(served) as stranger:
        assert stranger.get("/v1/webhooks").json() == []
        assert stranger.delete(f"/v1/webhooks/{made.id}").status_code == 404
        assert stranger.post("/v1/webhooks", json={"url": f"{LISTED}/hook"}).status_code == 422
    assert served.http.delete(f"/v1/webhooks/{made.id}").status_code == 204
    assert served.http.delete(f"/v1/webhooks/{made.id}").status_code == 404
    assert webhooks.list_webhooks(served.engine, "default") == ()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://203.0.113.9/", "plain http"),
        ("https://127.0.0.1/", "no public address"),
        ("https://2130706433/", "no public address"),
        ("https://169.254.169.254/latest", "no public address"),
        ("https://[::1]/", "no public address"),
    ],
)
def test_inside_nothing_is_posted(shared: Served, url: str, said: str) -> None:
    answer = shared.http.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:sparring:problem:target_forbidden"
    assert said in answer.json()["detail"]
    assert shared.http.get("/v1/webhooks").json() == []


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://a.example/", "https://u:p@a.example/", "https://a.example/#x", "https://ä.example/"]
)
def test_what_is_no_address_is_refused_with_its_place(shared: Served, url: str) -> None:
    answer = shared.http.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["pointer"] == "/url"


def test_a_project_has_no_more_than_so_many(served: Served) -> None:
    served.settings.grants.write_text(json.dumps({"default": [{"origin": LISTED}]}))
    twice = [served.http.post("/v1/webhooks", json={"url": f"{LISTED}/0"}) for _ in range(2)]
    assert [answer.status_code for answer in twice] == [201, 409]
    assert "already" in twice[-1].json()["detail"]
    served.http.delete(f"/v1/webhooks/{twice[0].json()['id']}")
    made = [served.http.post("/v1/webhooks", json={"url": f"{LISTED}/{at}"}) for at in range(webhooks.MOST + 1)]
    assert [answer.status_code for answer in made] == [*[201] * webhooks.MOST, 409]
    assert made[-1].json()["type"] == "urn:sparring:problem:too-many"
    assert "remove one first" in made[-1].json()["detail"]

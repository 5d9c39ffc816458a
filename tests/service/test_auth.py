from datetime import UTC, datetime
from pathlib import Path

import pytest

from sparring.service.app import create_app
from sparring.service.auth import UnsafeSettings
from sparring.storage import keys

from .conftest import Served, serving, settings_in


def test_without_a_key_nothing_is_told(shared: Served) -> None:
    with shared.client(None) as stranger:
        for method, path in [
            ("GET", "/v1/models"),
            ("POST", "/v1/models"),
            ("GET", "/v1/attacks"),
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs/x/events"),
        ]:
            answer = stranger.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["type"] == "urn:sparring:problem:unauthorized"
        assert stranger.get("/healthz").status_code == 200
    assert shared.stored() == []


@pytest.mark.parametrize("key", ["nonsense", "svc_key_" + "0" * 20 + "_" + "A" * 43, "svc_", "ä"])
def test_a_wrong_key_opens_nothing(shared: Served, key: str) -> None:
    with shared.client(None) as stranger:
        assert stranger.get("/v1/models", headers=[(b"Authorization", b"Bearer " + key.encode())]).status_code == 401
        assert stranger.get("/v1/models", headers={"Authorization": f"Basic {shared.key}"}).status_code == 401


def test_a_key_from_making_to_revoking(served: Served) -> None:
    made = served.http.post("/v1/keys", json={"name": "ci", "expires": "2999-01-01T00:00:00Z"})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    key = made.json()
    listed = served.http.get("/v1/keys")
    assert {one["name"] for one in listed.json()} == {"ci", "tests"}
    assert key["key"] not in listed.text
    with served.client(key["key"]) as client:
        assert client.get("/v1/models").status_code == 200
        assert served.http.delete(f"/v1/keys/{key['id']}").status_code == 204
        assert client.get("/v1/models").status_code == 401
    assert served.http.delete(f"/v1/keys/{key['id']}").status_code == 404


def test_an_expired_key_opens_nothing(served: Served) -> None:
    old = keys.create(served.engine, project="default", name="old", expires=datetime(2020, 1, 1, tzinfo=UTC))
    with served.client(old.key) as client:
        assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    "body", [{"name": "ci", "expires": "2020-01-01T00:00:00Z"}, {"name": "a", "expires": "2999-01-01T00:00:00"}, {"name": "<b>"}]
)
def test_a_key_that_would_not_do(shared: Served, body: dict[str, str]) -> None:
    assert shared.http.post("/v1/keys", json=body).status_code == 422


def test_anonymous_only_on_loopback(tmp_path: Path) -> None:
    with pytest.raises(UnsafeSettings, match=r"0\.0\.0\.0"):
        create_app(settings_in(tmp_path, anonymous=True, host="0.0.0.0"))
    with serving(settings_in(tmp_path, anonymous=True)) as served, served.client(None) as anyone:
        assert anyone.get("/v1/models").json()["items"] == []
        assert anyone.get("/v1/models", headers={"Origin": served.url}).status_code == 200
        foreign = anyone.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert (foreign.status_code, foreign.json()["type"]) == (403, "urn:sparring:problem:foreign-origin")
        rebound = anyone.get("/v1/models", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.headers["content-type"]) == (400, "application/problem+json")
        assert anyone.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401

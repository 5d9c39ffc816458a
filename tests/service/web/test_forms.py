"""Forms: what they make, and what they say of bad input."""

import json
from typing import Any

import pytest

from sparring.storage import webhooks

from ..conftest import Served, npz, pt2, upload_both
from ..test_endpoints import allow, register
from .conftest import Browser, faults

EVALUATION: dict[str, Any] = {"norm": "linf", "eps": "8/255", "suite": "quick", "rows": "10"}


def test_uploads_go_the_way_of_the_api(browser: Browser) -> None:
    browser.get("/models/new")
    made = browser.post("/models/new", name="my net", mean="0.5,0.4,0.3", std="1", layout="NHWC", file=("net.pt2", pt2()))
    assert made.status_code == 303, made.text
    model = browser.served.http.get(f"/v1{made.headers['Location']}").json()
    assert (model["name"], model["format"], model["spec"]["mean"], model["spec"]["layout"]) == ("my net", "pt2", [0.5, 0.4, 0.3], "NHWC")
    given = npz()
    made = browser.post("/datasets/new", bounds="0,1", file=("C:\\work\\my <data>.v2.npz", given))
    data = browser.served.http.get(f"/v1{made.headers['Location']}").json()
    assert (data["name"], data["spec"]["bounds"]) == ("my -data-.v2", [0, 1])
    assert browser.http.get(f"/datasets/{data['id']}/content").content == given


@pytest.mark.parametrize(
    ("fields", "file", "said"),
    [
        ({"name": "<script>"}, ("net.pt2", pt2()), "Only letters, digits"),
        ({"name": "a\0b"}, ("net.pt2", pt2()), "Only letters, digits"),
        ({"name": "\u202egnp.exe"}, ("net.pt2", pt2()), "Only letters, digits"),
        ({"mean": "one"}, ("net.pt2", pt2()), "not a number"),
        ({"classes": "1"}, ("net.pt2", pt2()), "greater than or equal to 2"),
        ({"arch": "vgg"}, ("net.pt2", pt2()), "mlp"),
        ({}, ("net.pkl", b"\x80\x04K\x01."), "pickle"),
        ({}, ("net.pt2", b""), "empty"),
        ({}, None, "multipart"),
    ],
)
def test_a_bad_upload_is_told_and_leaves_nothing(
    browser: Browser, fields: dict[str, Any], file: tuple[str, bytes] | None, said: str
) -> None:
    before = browser.served.stored()
    browser.get("/models/new")
    answer = browser.post("/models/new", file=file, **fields)
    assert answer.status_code in (400, 422)
    assert "text/html" in answer.headers["content-type"]
    assert said in (" ".join(faults(answer)) or answer.text)
    assert "<script>" not in answer.text
    assert browser.served.stored() == before


def test_an_upload_that_is_too_large_is_refused(browser: Browser) -> None:
    browser.get("/models/new")
    answer = browser.post("/models/new", file=("net.pt2", pt2() + bytes(3 << 20)))
    assert answer.status_code == 413
    slightly = browser.post("/models/new", file=("net.pt2", pt2() + bytes((1 << 20) + 10)))
    assert (slightly.status_code, len(faults(slightly))) == (422, 1)


def test_broken_multipart_is_told(browser: Browser) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\ngarbage", b"", b"--x--", b"--y\r\n\r\n--y--"):
        answer = browser.http.post("/models/new", content=body, headers=kind)
        assert answer.status_code in (400, 403), body
        assert "text/html" in answer.headers["content-type"]


def test_an_evaluation_is_submitted_once(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    browser.get("/evaluate")
    job = {**EVALUATION, "eps": "4/255, 8/255", "model": model.id, "data": data.id, "once": "form-1"}
    first, second = browser.post("/evaluate", **job), browser.post("/evaluate", **job)
    assert first.status_code == second.status_code == 303
    assert first.headers["Location"] == second.headers["Location"]
    told = shared.http.get(f"/v1{first.headers['Location']}").json()["job"]
    assert [threat["eps"] for threat in told["threats"]] == ["4/255", "8/255"]
    assert (told["suite"], told["rows"]) == ("quick", 10)
    changed = browser.post("/evaluate", **{**job, "rows": "11"})
    assert changed.status_code == 303
    assert changed.headers["Location"] != first.headers["Location"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eps": "much"}, "a number or a ratio"),
        ({"eps": ""}, "such as 8/255"),
        ({"eps": "8/0"}, "divides by zero"),
        ({"rows": "-1"}, "greater than or equal to 1"),
        ({"rows": "many"}, "not a whole number"),
        ({"norm": "l7"}, "linf"),
        ({"suite": "none"}, "quick"),
        ({"model": "mdl_" + "0" * 20}, "there is no model"),
        ({"model": "<script>alert(1)</script>"}, "not one of those"),
        ({"knowledge": ""}, "at least one"),
        ({"timeout": "long"}, "not a whole number"),
        ({"seed": "1.5"}, "whole number"),
        ({"device": "\0"}, "cpu"),
    ],
)
def test_a_bad_evaluation_is_told_at_its_field(browser: Browser, shared: Served, changes: dict[str, str], said: str) -> None:
    model, data = upload_both(shared)
    browser.get("/evaluate")
    answer = browser.post("/evaluate", **{**EVALUATION, "model": model.id, "data": data.id, **changes})
    assert answer.status_code == 422
    assert said in " ".join(faults(answer)).lower()
    assert "<script>alert" not in answer.text


def test_a_retraining_is_submitted(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    browser.get("/retrain")
    job = {"model": model.id, "data": data.id, "norm": "l2", "eps": "0.5", "defense": ["pgd", "vat"], "epochs": "3"}
    made = browser.post("/retrain", **job)
    assert made.status_code == 303, faults(made)
    told = shared.http.get(f"/v1{made.headers['Location']}").json()["job"]
    assert [each["kind"] for each in told["defenses"]] == ["pgd", "vat"]
    assert (told["defenses"][0]["norm"], told["defenses"][0]["eps"], told["training"]["epochs"]) == ("l2", 0.5, 3)
    assert [(each["norm"], each["eps"]) for each in told["threats"]] == [("l2", 0.5)]
    for changes, said in (
        ({"defense": []}, "at least one"),
        ({"epochs": "0"}, "greater"),
        ({"eps": "x"}, "ratio"),
        ({"defense": "x"}, "pgd"),
        ({"defense": "ensemble"}, "no surrogate"),
    ):
        answer = browser.post("/retrain", **{**job, **changes})
        assert answer.status_code == 422
        assert said in " ".join(faults(answer)), changes


CERTIFICATE: dict[str, Any] = {"norm": "linf", "eps": "1/255, 2/255", "method": "crown", "rows": "10"}
EXAMPLES: dict[str, Any] = {"norm": "l2", "eps": "0.5", "attack": "pgd", "rows": "10"}


def test_a_certificate_is_asked_for(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    page = browser.get(f"/certify?model={model.id}").text
    assert all(f'value="{kind}"' in page for kind in ("interval", "crown", "smoothing"))
    made = browser.post("/certify", **CERTIFICATE, model=model.id, data=data.id, suite="quick")
    assert made.status_code == 303, faults(made)
    told = shared.http.get(f"/v1{made.headers['Location']}").json()["job"]
    assert (told["kind"], told["method"], told["suite"], told["rows"]) == ("certify", {"kind": "crown"}, "quick", 10)
    assert [threat["eps"] for threat in told["threats"]] == ["1/255", "2/255"]
    smoothed = {"norm": "l2", "eps": "0.5", "method": "smoothing", "sigma": "0.12"}
    made = browser.post("/certify", model=model.id, data=data.id, **smoothed)
    assert shared.http.get(f"/v1{made.headers['Location']}").json()["job"]["method"]["sigma"] == 0.12
    assert "smoothing: l2 0.5" in browser.get(made.headers["Location"]).text


def test_examples_are_asked_for(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    browser.get("/craft")
    made = browser.post("/craft", **EXAMPLES, model=model.id, data=data.id, targeted="yes", seed="3")
    assert made.status_code == 303, faults(made)
    told = shared.http.get(f"/v1{made.headers['Location']}").json()["job"]
    assert (told["kind"], told["attack"]["kind"], told["seed"], told["rows"]) == ("craft", "pgd", 3, 10)
    assert told["threat"] == {"norm": "l2", "eps": 0.5, "targeted": True}


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        ("/certify", {"eps": ""}, "such as 8/255"),
        ("/certify", {"method": "magic"}, "crown"),
        ("/certify", {"method": ""}, "crown"),
        ("/certify", {"norm": "l0"}, "certifies nothing in norm l0"),
        ("/certify", {"method": "smoothing"}, "it knows l2"),
        ("/certify", {"method": "smoothing", "norm": "l2", "sigma": "0"}, "greater than 0"),
        ("/certify", {"suite": "none"}, "quick"),
        ("/craft", {"eps": ""}, "such as 8/255"),
        ("/craft", {"eps": "1, 2"}, "a number or a ratio"),
        ("/craft", {"norm": "l7"}, "linf"),
        ("/craft", {"attack": "fgsm"}, "not defined for norm l2"),
        ("/craft", {"attack": "<script>alert(1)</script>"}, "pgd"),
        ("/craft", {"rows": "0"}, "greater than or equal to 1"),
    ],
)
def test_a_bad_certificate_and_bad_examples_are_told_at_their_field(
    browser: Browser, shared: Served, path: str, changes: dict[str, str], said: str
) -> None:
    model, data = upload_both(shared)
    browser.get(path)
    asked = CERTIFICATE if path == "/certify" else EXAMPLES
    answer = browser.post(path, **{**asked, "model": model.id, "data": data.id, **changes})
    assert answer.status_code == 422
    assert said in " ".join(faults(answer)).lower()
    assert "<script>alert" not in answer.text


def test_an_endpoint_can_be_attacked_but_not_certified(browser: Browser, shared: Served) -> None:
    allow(shared)
    made = register(shared, "?name=far+away&classes=10")
    assert made.status_code == 201, made.text
    upload_both(shared)
    assert "far away" in browser.get("/craft").text
    assert "far away" not in browser.get("/certify").text


def test_forms_take_what_the_address_says_and_survive_any_of_it(browser: Browser, shared: Served) -> None:
    model, _ = upload_both(shared)
    assert f'value="{model.id}" selected' in browser.get(f"/evaluate?model={model.id}").text
    for query in ("model=%00&eps=%ff", "suite=<script>", "&".join(f"a={n}" for n in range(400)), "eps=" + "9" * 3000):
        assert browser.get(f"/evaluate?{query}").status_code == 200
        assert browser.get(f"/certify?{query}").status_code == 200
        assert browser.get(f"/craft?{query}").status_code == 200
        assert browser.get(f"/retrain/estimate?{query}").status_code == 200
    assert browser.get("/evaluate?" + "&".join(f"a={n}" for n in range(600))).status_code == 422


def test_a_key_is_shown_once_and_can_be_revoked(browser: Browser, shared: Served) -> None:
    browser.get("/settings")
    made = browser.post("/settings/keys", name="ci", days="30")
    assert made.status_code == 200
    secret = made.text.partition('x-ref="secret">')[2].partition("<")[0]
    with shared.client(secret) as http:
        assert http.get("/v1/keys").status_code == 200
        assert secret not in browser.get("/settings").text
        id = next(key["id"] for key in http.get("/v1/keys").json() if key["name"] == "ci")
        assert browser.post(f"/settings/keys/{id}/revoke").status_code == 303
        assert http.get("/v1/keys").status_code == 401
    assert faults(browser.post("/settings/keys", name="<b>")) == ["Only letters, digits, space and . _ + -, and at most 100 of them."]


def test_the_secret_of_a_webhook_is_shown_once_and_it_can_be_removed(browser: Browser, shared: Served) -> None:
    browser.get("/settings")
    shared.settings.grants.write_text(json.dumps({"default": [{"origin": "http://127.0.0.1:9999"}]}))
    made = browser.post("/settings/webhooks", url="http://127.0.0.1:9999/<b>")
    assert made.status_code == 200, made.text
    secret = made.text.partition('x-ref="secret">')[2].partition("<")[0]
    assert secret.startswith("whsec_")
    (hook,) = webhooks.list_webhooks(shared.engine, "default")
    listed = browser.get("/settings").text
    assert secret not in listed
    assert "http://127.0.0.1:9999/" in listed
    assert "<b>" not in listed
    assert browser.post(f"/settings/webhooks/{hook.id}/remove").status_code == 303
    assert webhooks.list_webhooks(shared.engine, "default") == ()
    assert browser.post(f"/settings/webhooks/{hook.id}/remove").status_code == 404


@pytest.mark.parametrize(
    ("url", "said"), [("nonsense", "http"), ("https://127.0.0.1/", "no public address"), ("https://u:p@a.example/", "user")]
)
def test_where_nothing_may_be_posted_is_said_at_the_field(browser: Browser, url: str, said: str) -> None:
    browser.get("/settings")
    answer = browser.post("/settings/webhooks", url=url)
    assert answer.status_code == 422
    assert any(said in fault for fault in faults(answer)), faults(answer)
    assert f'value="{url}"' in answer.text

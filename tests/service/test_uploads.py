import hashlib
import resource
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from sparring.service import uploads

from .conftest import Eventually, Served, npz, other_project, pt2


def test_a_model_comes_back_as_it_was_sent(served: Served) -> None:
    body = pt2()
    answer = served.http.post("/v1/models", params={"name": "net v1.0", "mean": "0.5,0.25", "std": "1"}, content=body)
    assert answer.status_code == 201
    info = answer.json()
    assert info["name"] == "net v1.0"
    assert info["format"] == "pt2"
    assert info["size"] == len(body)
    assert info["sha256"] == hashlib.sha256(body).hexdigest()
    assert info["spec"] == {"arch": None, "mean": [0.5, 0.25], "std": [1.0], "layout": None, "classes": None, "endpoint": None}
    assert answer.headers["Location"] == f"/v1/models/{info['id']}"
    assert served.http.get(answer.headers["Location"]).json() == info
    assert served.http.get(f"/v1/models/{info['sha256']}").json() == info
    content = served.http.get(f"/v1/models/{info['id']}/content")
    assert content.content == body
    assert content.headers["ETag"] == f'"{info["sha256"]}"'
    assert "net%20v1.0.pt2" in content.headers["Content-Disposition"]
    assert content.headers["X-Content-Type-Options"] == "nosniff"
    again = served.http.get(f"/v1/models/{info['id']}/content", headers={"If-None-Match": content.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_dataset_with_bounds(served: Served) -> None:
    answer = served.http.post("/v1/datasets", params={"bounds": "0,1", "scale": "0.5", "layout": "NHWC"}, content=npz())
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"] == {"bounds": [0.0, 1.0], "scale": 0.5, "layout": "NHWC"}
    assert served.http.post("/v1/datasets?bounds=0&bounds=1", content=npz()).json()["spec"]["bounds"] == [0.0, 1.0]
    assert served.http.post("/v1/datasets", params={"bounds": "none"}, content=npz()).json()["spec"]["bounds"] == "none"
    assert served.http.post("/v1/datasets", content=npz()).json()["name"] == "dataset"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("std=0", "/std"),
        ("mean=a", "/mean"),
        ("mean=1&mean=nan", "/mean"),
        ("mean=0.1,0.2&std=1,1,1", "/std"),
        ("classes=1", "/classes"),
        ("arch=vgg", "/arch"),
        ("name=../../etc", "/name"),
        ("name=" + "a" * 101, "/name"),
        ("name=%3Cscript%3E", "/name"),
        ("sha256=abc", "/sha256"),
        ("colour=red", "/colour"),
    ],
)
def test_a_wrong_query_is_named_and_nothing_is_stored(shared: Served, query: str, pointer: str) -> None:
    answer = shared.http.post(f"/v1/models?{query}", content=pt2())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (fault,) = answer.json()["problems"]
    assert (fault["where"], fault["pointer"]) == ("query", pointer)
    assert fault["message"] in answer.json()["detail"]
    assert shared.stored() == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"\x80\x04cos\nsystem\n", "unsafe_format", 422),
        (b"<html>", "malformed", 422),
        (b"PK\x03\x04 and then nothing", "malformed", 422),
        (b"", "malformed", 422),
    ],
)
def test_what_is_no_model_is_refused_and_not_kept(shared: Served, body: bytes, kind: str, status: int) -> None:
    answer = shared.http.post("/v1/models", content=body)
    assert answer.status_code == status
    assert answer.json()["type"] == f"urn:sparring:problem:{kind}"
    assert answer.json()["detail"]
    assert shared.stored() == []
    assert shared.http.get("/v1/models").json()["items"] == []


def test_data_without_the_bounds_that_it_needs_are_refused_and_not_kept(served: Served) -> None:
    floats = npz(b"\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }")
    answer = served.http.post("/v1/datasets", content=floats)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sparring:problem:bounds_undeclared")
    assert "f4 values" in answer.json()["detail"]
    assert "0,1" in answer.json()["hint"]
    assert served.stored() == []
    assert served.http.post("/v1/datasets?bounds=0,1", content=floats).status_code == 201


def test_a_digest_that_does_not_match_stores_nothing(served: Served) -> None:
    answer = served.http.post("/v1/models", params={"sha256": "0" * 64}, content=pt2())
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:sparring:problem:digest-mismatch"
    assert served.stored() == []
    right = hashlib.sha256(pt2()).hexdigest()
    assert served.http.post("/v1/models", params={"sha256": right}, content=pt2()).status_code == 201


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b"\x00" * 65536


def test_too_much_is_refused_with_and_without_a_length(shared: Served) -> None:
    limit = shared.settings.max_upload
    for body in (b"\x00" * (limit + 1), pieces(64)):
        answer = shared.http.post("/v1/models", content=body)
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:sparring:problem:too-large"
        assert str(limit) in answer.json()["detail"]
    assert shared.stored() == []


def test_a_length_over_the_limit_is_refused_before_the_body_comes(shared: Served) -> None:
    address = urlsplit(shared.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as line:
        length = shared.settings.max_upload + 1
        head = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared.key}\r\nContent-Length: {length}\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_upload_that_breaks_off_leaves_nothing(served: Served, eventually: Eventually) -> None:
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as line:
        head = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\nContent-Length: 900000\r\n\r\n"
        line.sendall(head.encode() + b"\x00" * 300_000)
        eventually(served.stored)
    eventually(lambda: not served.stored())
    assert served.http.get("/v1/models").json()["items"] == []


def test_a_form_is_refused_with_the_right_command(shared: Served) -> None:
    answer = shared.http.post("/v1/models", files={"file": ("m.pt2", pt2())})
    assert answer.status_code == 415
    assert f"curl -X POST -T FILE -H 'Authorization: Bearer KEY' {shared.url}/v1/models" in answer.json()["hint"]
    assert shared.stored() == []


def test_deleting_and_the_job_that_needs_it(served: Served) -> None:
    model = served.http.post("/v1/models", content=pt2()).json()["id"]
    data = served.http.post("/v1/datasets", content=npz()).json()["id"]
    job = served.http.post("/v1/jobs", json={"kind": "evaluate", "model": model, "data": data, "threats": [{"norm": "linf", "eps": 0.1}]})
    assert served.http.delete(f"/v1/models/{model}").json()["type"] == "urn:sparring:problem:in-use"
    assert served.http.delete(f"/v1/datasets/{data}").status_code == 409
    served.http.post(f"/v1/jobs/{job.json()['id']}/cancel")
    assert served.http.delete(f"/v1/models/{model}").status_code == 204
    assert served.http.get(f"/v1/models/{model}").status_code == 404


def test_lists_come_in_pages(served: Served) -> None:
    for at in range(5):
        assert served.http.post(f"/v1/models?name=m{at}", content=pt2()).status_code == 201
    seen, url = [], "/v1/models?limit=2"
    while url:
        page = served.http.get(url)
        seen += [item["name"] for item in page.json()["items"]]
        url = page.links["next"]["url"] if "next" in page.links else ""
    assert sorted(seen) == ["m0", "m1", "m2", "m3", "m4"]
    for wrong in ("limit=0", "limit=1000", "cursor=eA==", "cursor=%00", "page=2"):
        assert served.http.get(f"/v1/models?{wrong}").status_code == 422, wrong


def test_another_project_sees_nothing(served: Served) -> None:
    info = served.http.post("/v1/models", content=pt2()).json()
    with other_project(served) as stranger:
        assert stranger.get("/v1/models").json()["items"] == []
        for url in (info["id"], info["sha256"], f"{info['id']}/content"):
            assert stranger.get(f"/v1/models/{url}").status_code == 404
        assert stranger.delete(f"/v1/models/{info['id']}").status_code == 404
    assert served.http.get(f"/v1/models/{info['id']}").status_code == 200


def test_a_full_disk_is_said_and_nothing_is_kept(served: Served) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, usual[1]))
    try:
        answer = served.http.post("/v1/models", content=b"\x00" * 900_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert answer.status_code == 507
    assert answer.json()["type"] == "urn:sparring:problem:disk-full"
    assert served.stored() == []
    assert served.http.post("/v1/models", content=pt2()).status_code == 201


def test_an_upload_that_stands_still_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.1)
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as line:
        head = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\nContent-Length: 900000\r\n\r\n"
        line.sendall(head.encode() + b"\x00" * 300_000)
        assert line.recv(4096).startswith(b"HTTP/1.1 408")
    assert served.stored() == []

import hashlib

import pytest

from sparring.service.reports import preferred

from .conftest import Served, complete, submit

FILES = {
    "report.json": b'{"version": 1}',
    "report.html": b"<!doctype html><title>r</title>",
    "report.md": "# Bericht über alles".encode(),
    "rows.csv": b"row,label\n0,1\n",
    "rows.parquet": b"PAR1PAR1",
    "examples.npz": b"PK",
}


def test_nothing_before_the_end(served: Served) -> None:
    url = f"/v1/jobs/{submit(served).id}"
    for path in ("report", "report.md", "rows", "artifacts/examples.npz"):
        answer = served.http.get(f"{url}/{path}")
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:sparring:problem:not-finished")
    assert served.http.get(f"{url}/artifacts").json() == []


def test_every_form_of_what_a_job_left(served: Served) -> None:
    url = f"/v1/jobs/{complete(served, submit(served).id, FILES).id}"
    for accept, name in {"*/*": "report.json", "text/html,*/*;q=0.8": "report.html", "text/markdown": "report.md"}.items():
        answer = served.http.get(f"{url}/report", headers={"Accept": accept})
        assert answer.content == FILES[name]
        assert answer.headers["Vary"] == "Accept"
        assert "content-disposition" not in answer.headers
        assert served.http.get(f"{url}/{name}").content == FILES[name]
    page = served.http.get(f"{url}/report.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert served.http.get(f"{url}/rows").content == served.http.get(f"{url}/rows.csv").content == FILES["rows.csv"]
    assert served.http.get(f"{url}/rows.parquet").headers["Content-Disposition"].startswith("attachment")

    listed = served.http.get(f"{url}/artifacts").json()
    assert {one["name"]: one["sha256"] for one in listed} == {name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()}
    for one in listed:
        got = served.http.get(f"{url}/artifacts/{one['name']}")
        assert got.content == FILES[one["name"]]
        assert got.headers["Content-Disposition"].startswith("attachment")
        assert got.headers["ETag"] == f'"{one["sha256"]}"'
        assert served.http.get(f"{url}/artifacts/{one['name']}", headers={"If-None-Match": f'W/"x", "{one["sha256"]}"'}).status_code == 304
    assert served.http.get(f"{url}/examples.npz").content == FILES["examples.npz"]
    for path in ("artifacts/crafted.npz", "crafted.npz"):
        missing = served.http.get(f"{url}/{path}")
        assert missing.status_code == 404
        assert "rows.parquet" in missing.json()["hint"]
    assert served.http.get(f"{url}/report", headers={"Accept": "image/png"}).status_code == 406


def test_a_report_that_the_disk_has_lost(served: Served) -> None:
    job = complete(served, submit(served).id, FILES)
    served.folder.delete(job.artifacts[0].sha256)
    answer = served.http.get(f"/v1/jobs/{job.id}/artifacts/{job.artifacts[0].name}")
    assert answer.status_code == 404
    assert job.artifacts[0].sha256 in answer.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", None),
        ("application/json", "report.json"),
        ("text/html, application/json;q=0.9", "report.html"),
        ("text/html;q=0.1, text/markdown;q=0.5", "report.md"),
        ("text/*", "report.html"),
        ("application/json;q=0, text/html;q=x", None),
        ("TEXT/HTML", "report.html"),
    ],
)
def test_what_an_accept_header_likes_best(accept: str, name: str | None) -> None:
    assert preferred(accept) == name

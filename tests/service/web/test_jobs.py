"""Pages about jobs: while they run, when they have ended, what they left, and two of them compared."""

import io
import re
import zipfile
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from reports.factory import report
from reports.verdicts import verdict

from sparring.contract.attacks import PGD
from sparring.contract.jobs import JOB, Certify
from sparring.contract.report import Report
from sparring.contract.resources import EventInfo
from sparring.contract.states import Progress
from sparring.contract.threat import Threat
from sparring.reports.pictures import Album, Broken
from sparring.reports.png import png
from sparring.reports.rows import Row, write_csv
from sparring.reports.text import rate
from sparring.service.web.jobs import POINTS, pace
from sparring.service.web.measured import _parsed
from sparring.service.web.view import STATIC
from sparring.storage import attempts, jobs

from ..conftest import Served, complete, job_for, submit, upload_both
from .conftest import Browser, Visit

DOT = png(b"\x07", 1, 1, 1)


def rows_of(told: Report) -> bytes:
    """A rows.csv with the counts of the report: the first rows stand."""
    file = io.StringIO(newline="")
    rows = []
    for result in told.threats:
        for row in range(told.clean.total):
            right, stands = row < told.clean.count, row < result.worst.count
            by = "" if stands else "pgd" if right else "clean"
            norm, eps = result.threat.norm, result.threat.radius
            rows.append(Row(row, 0, 0 if right else 1, norm, eps, int(not stands), by, 0, None, 1, None, None, None))
    write_csv(rows, file)
    return file.getvalue().encode()


def ended(served: Served, told: Report, model: str, data: str, **more: bytes) -> str:
    return done_with(served, told, job_for(model, data), {name.replace("_", "."): content for name, content in more.items()})


def done_with(served: Served, told: Report, job: dict[str, object], more: dict[str, bytes]) -> str:
    answer = served.http.post("/v1/jobs", json=job)
    assert answer.status_code == 202, answer.text
    files = {"report.json": told.model_dump_json().encode(), "rows.csv": rows_of(told), "examples.npz": b"npz"}
    files["report.html"] = b"<!doctype html><h1>whole</h1>"
    return complete(served, answer.json()["id"], files | more).id


def kept(threat: int, *rows: int) -> bytes:
    """A pictures.zip."""
    file = io.BytesIO()
    with Album(file, new=True) as album:
        for row in rows:
            album.keep_original(row, DOT)
            album.keep_broken(threat, row, Broken(DOT, DOT))
    return file.getvalue()


def test_a_job_from_submission_to_its_end(browser: Browser, shared: Served) -> None:
    job = submit(shared)
    page = browser.get(f"/jobs/{job.id}").text
    assert "queued" in page
    assert f'hx-get="/jobs/{job.id}/live"' in page
    assert "queue cannot be reached" in browser.get(f"/jobs/{job.id}/live").text
    assert "Cancel" in page
    assert browser.post(f"/jobs/{job.id}/cancel").headers["Location"] == f"/jobs/{job.id}"
    page = browser.get(f"/jobs/{job.id}").text
    assert "the job was cancelled" in page
    assert "hx-get" not in page
    assert browser.get(f"/jobs/{job.id}/live").headers["HX-Refresh"] == "true"
    assert browser.post(f"/jobs/{job.id}/cancel").status_code == 409
    assert browser.post(f"/jobs/{job.id}/retry").status_code == 303
    assert jobs.get(shared.engine, "default", job.id).attempt == 2
    browser.post(f"/jobs/{job.id}/cancel")
    assert browser.post(f"/jobs/{job.id}/delete").headers["Location"] == "/jobs"
    assert browser.get(f"/jobs/{job.id}").status_code == 404


def test_a_running_job_tells_how_far_it_is(browser: Browser, shared: Served) -> None:
    job = submit(shared)
    claim = attempts.claim(shared.engine, job.id, 1, worker="test", lease=60)
    assert claim
    live = browser.get(f"/jobs/{job.id}/live").text
    assert "running" in live
    assert "<progress" in live
    assert "<html" not in live


def happened(id: int, kind: str, state: str, done: int, attempt: int = 1) -> EventInfo:
    progress = Progress(phase="attacks", done=done, total=100, rate=5.0)
    when = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=id)
    return EventInfo(id=id, job="job_x", time=when, kind=kind, state=state, attempt=attempt, progress=progress)


def test_the_chart_of_progress_ends_where_the_job_ended() -> None:
    told = [happened(0, "state", "queued", 0), happened(1, "state", "running", 0)]
    assert pace(told, 1) == []
    told += [happened(1 + at, "progress", "running", at) for at in range(1, 201)]
    running = pace(told, 1)
    assert len(running) <= POINTS * 2
    assert (running[0].seconds, running[-1].seconds) == (1, 200)
    ended_ = pace([*told, happened(203, "state", "timed_out", 99)], 1)
    assert ended_[:-1] == running
    assert (ended_[-1].seconds, ended_[-1].progress.done, ended_[-1].what) == (202, 99, "timed out")
    assert pace([*told, happened(203, "state", "queued", 99, attempt=2)], 2) == []


def test_progress_has_a_unit_and_an_end(browser: Browser, shared: Served) -> None:
    job = submit(shared)
    assert attempts.claim(shared.engine, job.id, 1, worker="test", lease=60)
    for done in (40, 100):  # the second comes too soon to be an event of its own
        attempts.beat(shared.engine, job.id, 1, lease=60, progress=Progress(phase="attacks", done=done, total=100, rate=3.0))
    assert attempts.finish(shared.engine, job.id, 1, state="succeeded", files={})
    page = browser.get(f"/jobs/{job.id}").text
    assert 'data-y="row-attacks"' in page
    assert "Row-attacks done (one row, one threat, one attack each), by seconds since the job began; the last point is its end." in page
    last = page[page.index("row-attacks done</th>") :].partition("</tbody>")[0].rpartition("<tr>")[2]
    assert 'data-value="100">100</td>' in last
    assert "<td>succeeded</td>" in last


def test_jobs_by_state(browser: Browser, shared: Served) -> None:
    job = submit(shared)
    assert job.id in browser.get("/jobs?state=queued").text
    assert job.id not in browser.get("/jobs?state=timed_out").text
    for bad in ("state=none", "cursor=%00", "cursor=abc", "limit=0"):
        answer = browser.get(f"/jobs?{bad}")
        assert answer.status_code == 422, bad
        assert "text/html" in answer.headers["content-type"]


def test_the_report_and_its_downloads(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    told = report()
    told = told.model_copy(
        update={
            "model": told.model.model_copy(update={"sha256": model.sha256}),
            "data": told.data.model_copy(update={"sha256": data.sha256}),
        }
    )
    job = ended(shared, told, model.id, data.id)
    page = browser.get(f"/jobs/{job}/report").text
    assert f"{100 * told.threats[0].worst.rate:.1f} %" in page
    assert 'sandbox="allow-same-origin"' in page
    shown = browser.get(f"/jobs/{job}/files/report.html?shown=true")
    assert "content-disposition" not in shown.headers
    assert shown.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for name in ("report.json", "rows.csv", "examples.npz"):
        answer = browser.get(f"/jobs/{job}/files/{name}?shown=true")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"].startswith("attachment")
    archive = zipfile.ZipFile(io.BytesIO(browser.get(f"/jobs/{job}/report.zip").content))
    assert set(archive.namelist()) == {
        *("manifest.json", "report.json", "report.html", "rows.csv", "examples.npz", "model.pt2", "data.npz"),
    }
    assert browser.get(f"/jobs/{job}/files/passwd").status_code == 404
    assert browser.get(f"/jobs/{job}/files/..%2fpasswd").status_code == 404
    assert f"{100 * told.threats[0].worst.rate:.1f} %" in browser.get(f"/models/{model.id}").text
    assert told.threats[0].trust.level in browser.get(f"/models/{model.id}/badge.svg").text
    assert "pace of" in browser.get(f"/evaluate/estimate?model={model.id}&data={data.id}&norm=linf&eps=0.1&suite=quick&rows=10").text


def test_a_certificate_brackets_the_truth(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    job = {"kind": "certify", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": "4/255"}]}
    told = report(threats=(Threat(norm="linf", eps="4/255"),))
    asked = JOB.validate_python(job)
    assert isinstance(asked, Certify)
    first = told.threats[0].model_copy(update={"certified": 300})
    run = told.provenance.model_copy(update={"proof": "CROWN"})
    told = told.model_copy(update={"job": asked.evaluation(), "threats": (first,), "provenance": run})
    done = done_with(shared, told, job, {})
    page = browser.get(f"/jobs/{done}/report").text
    assert "Certified: 30.0 % (300 of 1,000 rows), by CROWN. No attack broke 64.0 %." in page
    assert "The robust accuracy lies between the two." in page
    query = f"model={model.id}&data={data.id}&norm=linf&eps=4/255&rows=10"
    assert f"pace of {done}" in browser.get(f"/certify/estimate?{query}&method=crown").text
    assert done not in browser.get(f"/certify/estimate?{query}&method=interval").text
    assert done not in browser.get(f"/evaluate/estimate?{query}&suite=quick").text


def test_crafted_examples_are_there_to_download(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    threat = Threat(norm="linf", eps="8/255")
    job = {"kind": "craft", "model": model.id, "data": data.id, "threat": {"norm": "linf", "eps": "8/255"}, "attack": {"kind": "pgd"}}
    told = report(threats=(threat,), attacks=(PGD(),))
    told = told.model_copy(update={"job": JOB.validate_python(job)})
    done = done_with(shared, told, job, {"crafted.npz": b"the examples"})
    link = f'href="/jobs/{done}/files/crafted.npz" download'
    assert link in browser.get(f"/jobs/{done}").text
    page = browser.get(f"/jobs/{done}/report").text
    assert link in page
    assert "its strongest try" in page
    assert browser.get(f"/jobs/{done}/files/crafted.npz").content == b"the examples"
    query = f"model={model.id}&data={data.id}&norm=linf&eps=8/255&attack=pgd&rows=10"
    assert f"pace of {done}" in browser.get(f"/craft/estimate?{query}").text


BADGE = re.compile(r"!\[robust accuracy\]\((http://[^)]*/badges/[^)]*\.svg)\)")


def test_a_badge_is_shown_to_whoever_knows_its_address(browser: Browser, stranger: Browser, served: Served, visit: Visit) -> None:
    own = visit(served).log_in()
    model, data = upload_both(served)
    address = BADGE.findall(own.get(f"/models/{model.id}").text)[0]
    anyone = visit(served)
    assert "not measured" in anyone.get(address).text
    told = report()
    ended(served, told, model.id, data.id)
    shown = anyone.get(address)
    assert shown.headers["Content-Type"] == "image/svg+xml"
    assert shown.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Set-Cookie" not in shown.headers
    assert told.threats[-1].trust.level in shown.text
    assert model.name not in shown.text
    assert model.id not in shown.text
    assert shown.text == own.get(f"/models/{model.id}/badge.svg").text
    assert anyone.get(f"/models/{model.id}").status_code == 303
    elsewhere = address.replace(served.url, "")
    assert stranger.get(elsewhere).status_code == 404, "another installation has another secret"
    own.post(f"/models/{model.id}/delete")
    assert anyone.get(address).status_code == 404


@pytest.mark.parametrize("word", ["", "x", "{id}", "{id}.", "{id}.{id}", "{id}.ä", "%00", ".", "..", "{id}." + "A" * 43])
def test_a_badge_cannot_be_guessed(stranger: Browser, shared: Served, word: str) -> None:
    model, _ = upload_both(shared)
    answer = stranger.get(f"/badges/{word.replace('{id}', model.id)}.svg")
    assert answer.status_code == 404
    assert "<svg" not in answer.text


def test_a_number_of_the_smoothed_model_is_none_of_the_model(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    job = {"kind": "certify", "model": model.id, "data": data.id, "threats": [{"norm": "l2", "eps": 0.5}], "method": "smoothing"}
    told = report(threats=(Threat(norm="l2", eps=0.5),))
    asked = JOB.validate_python(job)
    assert isinstance(asked, Certify)
    before = browser.get(f"/models/{model.id}/badge.svg").text
    done_with(shared, told.model_copy(update={"job": asked.evaluation()}), job, {})
    assert browser.get(f"/models/{model.id}/badge.svg").text == before
    job |= {"method": "crown"}
    asked = JOB.validate_python(job)
    assert isinstance(asked, Certify)
    done_with(shared, told.model_copy(update={"job": asked.evaluation()}), job, {})
    assert rate(told.threats[0].worst).removesuffix(" %") in browser.get(f"/models/{model.id}/badge.svg").text


def test_without_a_report_there_is_a_reason(browser: Browser, shared: Served) -> None:
    job = submit(shared)
    answer = browser.get(f"/jobs/{job.id}/report")
    assert answer.status_code == 409
    assert "is queued" in answer.text
    assert browser.get(f"/jobs/{job.id}/report.zip").status_code == 404


def test_two_reports_side_by_side(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    told = report()
    weaker = told.threats[0].model_copy(
        update={"worst": told.threats[0].worst.model_copy(update={"count": told.threats[0].worst.count - 1})}
    )
    other = told.model_copy(update={"threats": (weaker, *told.threats[1:])})
    one, two = ended(shared, told, model.id, data.id), ended(shared, other, model.id, data.id)
    page = browser.get(f"/compare?before={one}&after={two}")
    assert page.status_code == 200, page.text
    assert f"1 row: {weaker.worst.count}" in page.text
    assert "No pictures of them were kept" in page.text
    drawn = ended(shared, other, model.id, data.id, pictures_zip=kept(0, weaker.worst.count))
    page = browser.get(f"/compare?before={one}&after={drawn}")
    assert page.text.count(f'<img src="data:image/png;base64,{b64encode(DOT).decode()}"') == 3
    assert "<script>" not in page.text
    names = zipfile.ZipFile(io.BytesIO(browser.get(f"/jobs/{drawn}/files/pictures.zip").content)).namelist()
    assert f"original/{weaker.worst.count}.png" in names
    for broken in (b"hello", kept(0), kept(0, weaker.worst.count).replace(DOT[:8], b"<script>")):
        damaged = ended(shared, other, model.id, data.id, pictures_zip=broken)
        answer = browser.get(f"/compare?before={one}&after={damaged}")
        assert answer.status_code == 200, "figures need no pictures"
        assert "No pictures of them were kept" in answer.text
        assert "<script>" not in answer.text.replace("<script src", "")
    submitted = submit(shared)
    for before, after in ((one, submitted.id), (one, "job_x"), ("<script>", "\0")):
        answer = browser.http.get("/compare", params={"before": before, "after": after})
        assert answer.status_code == 422
        assert "cannot be compared" in answer.text
        assert "<script>" not in answer.text.replace("<script src", "")


def test_the_list_of_models_reads_the_last_report_of_each_alone(served: Served, visit: Visit) -> None:
    browser = visit(served).log_in()
    model, data = upload_both(served)
    told = report()
    for drop in (0, 1, 2):
        worst = told.threats[0].worst.model_copy(update={"count": told.threats[0].worst.count // 4 - 9 * drop})
        ended(served, told.model_copy(update={"threats": (told.threats[0].model_copy(update={"worst": worst}),)}), model.id, data.id)
    known = _parsed.cache_info().misses
    for path in ("/models", f"/models/{model.id}/badge.svg"):
        assert rate(worst).removesuffix(" %") in browser.get(path).text
        assert _parsed.cache_info().misses == known + 1
    assert browser.get(f"/models/{model.id}").status_code == 200
    assert _parsed.cache_info().misses == known + 3


def test_what_a_user_wrote_is_inert(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    told = report()
    evil = '<script>alert("x")</script>\u202e\0'
    told = told.model_copy(update={"data": told.data.model_copy(update={"name": evil})})
    ended(shared, told, model.id, data.id)
    page = browser.get(f"/models/{model.id}").text
    assert "&lt;script&gt;" in page
    assert "\\u{202e}" in page
    assert not re.search("<script>|\u202e|\0", page)


def test_deleting(browser: Browser, shared: Served) -> None:
    model, data = upload_both(shared)
    answer: Any = shared.http.post("/v1/jobs", json=job_for(model.id, data.id))
    browser.get("/settings")
    assert browser.post(f"/models/{model.id}/delete").status_code == 409
    assert browser.post(f"/datasets/{data.id}/delete").status_code == 409
    browser.post(f"/jobs/{answer.json()['id']}/cancel")
    assert browser.post(f"/models/{model.id}/delete").headers["Location"] == "/models"
    assert browser.post(f"/datasets/{data.id}/delete").headers["Location"] == "/datasets"
    page = browser.get(f"/jobs/{answer.json()['id']}")
    assert page.status_code == 200
    assert "(deleted)" in page.text


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_files_of_ours_are_served(browser: Browser, path: Path) -> None:
    answer = browser.get(f"/static/{path.name}")
    assert answer.content == path.read_bytes()
    assert "immutable" in answer.headers["Cache-Control"]


def test_what_gates_decided(browser: Browser, shared: Served) -> None:
    policy = {
        "version": 1,
        "model": {"path": "net.pt2"},
        "data": {"path": "data.npz"},
        "threats": {"near": {"norm": "linf", "eps": "8/255"}},
        "rules": [{"id": "robust-near", "metric": "robust", "threat": "near", "min": 0.4}],
    }
    decided = verdict()
    kept = shared.http.post("/v1/gates", json={"name": "net", "policy": policy, "verdict": decided.model_dump(mode="json")})
    assert kept.status_code == 201, kept.text
    assert kept.json()["id"] in browser.get("/gates").text
    page = browser.get(f"/gates/{kept.json()['id']}").text
    assert decided.word in page
    assert all(rule.id in page for rule in decided.rules)
    assert browser.get("/gates/nope").status_code == 404
    assert kept.json()["id"] not in browser.get("/gates?name=other").text

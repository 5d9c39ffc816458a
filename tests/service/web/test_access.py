"""Who sees the pages, and what protects them."""

import re
from pathlib import Path

import pytest

from sparring.service.sessions import Sessions, shared_secret
from sparring.service.web.overview import place
from sparring.storage import keys

from ..conftest import Served, other_project, serving, settings_in, submit
from .conftest import Browser, Visit

PAGES = (
    "/",
    "/models",
    "/models/new",
    "/datasets",
    "/datasets/new",
    "/jobs",
    "/evaluate",
    "/retrain",
    "/certify",
    "/craft",
    "/compare",
    "/gates",
    "/workers",
    "/settings",
)


def test_without_a_key_every_page_leads_to_the_login(stranger: Browser) -> None:
    for path in (*PAGES, "/jobs/x", "/jobs/x/report", "/models/x", "/models/x/badge.svg", "/datasets/x", "/jobs/x/files/rows.csv"):
        answer = stranger.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["Location"].startswith("/login"), path
    assert stranger.get("/jobs?state=failed").headers["Location"] == "/login?next=%2Fjobs%3Fstate%3Dfailed"
    assert stranger.post("/settings/keys", name="mine").status_code in (303, 403)
    assert not [key for key in keys.list_keys(stranger.served.engine, "default") if key.name == "mine"]


def test_with_a_key_every_page_is_there(browser: Browser) -> None:
    for path in PAGES:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert "<h1>" in answer.text


def test_every_page_lets_nothing_run_but_its_own_scripts(browser: Browser) -> None:
    for path in (*PAGES, "/jobs/nothing", "/static/pages.js"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert browser.get("/").headers["Cache-Control"] == "no-store"


def test_pages_hold_no_inline_script_and_no_inline_style(browser: Browser) -> None:
    for path in PAGES:
        page = browser.get(path).text
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page) == [], path
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page), path


def test_the_cookie_is_for_this_server_and_for_no_script(stranger: Browser) -> None:
    stranger.get("/login")
    cookie = stranger.post("/login", key=stranger.served.key).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert stranger.served.key not in cookie


@pytest.mark.parametrize("key", ["", "nonsense", "svc_key_" + "0" * 20 + "_" + "A" * 43, "<script>alert(1)</script>", "\0", "ä" * 5000])
def test_a_wrong_key_is_told_at_its_field(stranger: Browser, key: str) -> None:
    stranger.get("/login")
    answer = stranger.post("/login", key=key)
    assert answer.status_code == 422
    assert "unknown, revoked or expired" in answer.text
    assert "<script>alert" not in answer.text
    assert stranger.get("/").status_code == 303


def test_a_form_of_another_session_does_nothing(browser: Browser, shared: Served, visit: Visit) -> None:
    other = visit(shared).log_in()
    for token in ("", "x", other.token):
        answer = browser.post("/settings/keys", token=token, name="forged")
        assert answer.status_code == 403
        assert "text/html" in answer.headers["content-type"]
    foreign = browser.http.post(
        "/settings/keys", data={"csrf": browser.token, "name": "forged"}, headers={"Origin": "https://evil.example"}
    )
    assert foreign.status_code == 403
    assert not [key for key in keys.list_keys(shared.engine, "default") if key.name == "forged"]


def test_a_session_ends_with_its_key_and_by_logging_out(shared: Served, visit: Visit) -> None:
    made = keys.create(shared.engine, project="default", name="short")
    one = visit(shared).log_in(made.key)
    keys.revoke(shared.engine, "default", made.id)
    assert one.get("/").status_code == 303
    other = visit(shared).log_in()
    assert other.post("/logout").headers["Location"] == "/login"
    assert other.get("/").status_code == 303


def test_a_cookie_that_was_tampered_with_opens_nothing(browser: Browser) -> None:
    name, sealed = next(iter(browser.http.cookies.items()))
    key, until, nonce, signature = sealed.split(".")
    for forged in (
        f"{key}.{int(until) + 1}.{nonce}.{signature}",
        f"{key}.{until}.{nonce}.{'A' * 43}",
        "",
        "....",
        f"{key}.{until}.{nonce}",
    ):
        browser.http.cookies.clear()
        browser.http.cookies.set(name, forged)
        assert browser.get("/").status_code == 303


def test_nothing_of_another_project_is_shown(shared: Served, visit: Visit) -> None:
    job = submit(shared)
    with other_project(shared) as client:
        theirs = visit(shared).log_in(client.headers["Authorization"].removeprefix("Bearer "))
    for path in (
        f"/jobs/{job.id}",
        f"/jobs/{job.id}/live",
        f"/jobs/{job.id}/report",
        f"/models/{job.job.model}",
        f"/datasets/{job.job.data}",
    ):
        assert theirs.get(path).status_code == 404, path
    theirs.get("/settings")
    assert theirs.post(f"/jobs/{job.id}/cancel").status_code == 404
    assert theirs.post(f"/models/{job.job.model}/delete").status_code == 404
    for path in ("/", "/models", "/jobs", "/evaluate", "/compare"):
        assert job.id not in theirs.get(path).text
        assert job.job.model not in theirs.get(path).text


def test_without_keys_the_pages_are_there_at_once(tmp_path: Path, visit: Visit) -> None:
    with serving(settings_in(tmp_path, anonymous=True)) as served:
        one = visit(served)
        assert one.get("/").status_code == 200
        assert one.get("/login").status_code == 303
        one.get("/settings")
        assert one.post("/settings/keys", name="ci").status_code == 200
        assert one.http.post("/settings/keys", data={"name": "blind"}).status_code == 403
        assert one.http.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "", "javascript:alert(1)", "/a b", "/\n/x"]
)
def test_the_login_leads_to_pages_of_ours_alone(wanted: str) -> None:
    assert place(wanted) == "/"


def test_the_login_leads_back() -> None:
    assert place("/jobs?state=failed") == "/jobs?state=failed"


def test_processes_of_one_folder_share_a_secret(tmp_path: Path) -> None:
    one, other = Sessions(shared_secret(tmp_path)), Sessions(shared_secret(tmp_path))
    session = one.begin("key_" + "0" * 20)
    assert other.open(one.seal(session)) == session
    assert Sessions(b"another").open(one.seal(session)) is None
    assert one.open(one.seal(session._replace(until=1))) is None
    assert (tmp_path / "session.secret").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["session.secret"]


def test_errors_are_pages_for_browsers_and_problems_for_programs(browser: Browser, shared: Served) -> None:
    page = browser.get("/nowhere")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert shared.http.get("/nowhere").json()["status"] == 404
    assert shared.http.get("/v1/nowhere", headers={"Accept": "text/html"}).json()["status"] == 404
    gone = browser.http.get("/jobs/job_x/live", headers={"HX-Request": "true"})
    assert (gone.status_code, gone.headers["HX-Refresh"]) == (404, "true")

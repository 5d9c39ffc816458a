"""Everything a user does with the pages, in a real browser, which must not complain once."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow.stack import Stack, stack
from workers.orders import digits, export, network, trained

playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: the pages were not tried in a browser (make test-browser)")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not CHROMIUM, reason="NO CHROMIUM: the pages were not tried in a browser; name one with CHROMIUM"),
]

PATIENCE = 300_000
"""Milliseconds."""
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update")
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 400, "height": 860}}
SHOTS = os.environ.get("SPARRING_SHOTS")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    export(trained(network()), folder / "net.pt2")
    x, y = digits()
    np.savez(folder / "digits.npz", x=x[:400], y=y[:400])
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("stack")) as one:
        yield one


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield chromium
        chromium.close()


class User:
    """Somebody at a browser, who notes everything that it complains about."""

    def __init__(self, browser: Any, running: Stack, files: Path) -> None:
        self.context = browser.new_context(viewport=SIZES["wide"], accept_downloads=True)
        self.context.set_default_timeout(60_000)
        self.page = self.context.new_page()
        self.url, self.key, self.files = running.url, running.key, files
        self.complaints: list[str] = []
        self.polls = 0
        self.page.on(
            "console", lambda said: self.complaints.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._sent)

    def _said(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(f"{said.type}: {said.text}")

    def _failed(self, request: Any) -> None:
        # A request that is cut off because the page is left, and a download, are no failures.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.complaints.append(f"{request.url}: {request.failure}")

    def _sent(self, request: Any) -> None:
        self.polls += request.url.endswith("/live")
        if not request.url.startswith((self.url, "data:")):
            self.complaints.append(f"asked elsewhere: {request.url}")

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def heading(self) -> str:
        return str(self.page.locator("h1").inner_text())

    def log_in(self) -> None:
        self.go(f"/login#{self.key}")
        self.page.wait_for_url(f"{self.url}/")

    def upload(self, what: str, name: str, file: str, **fields: str) -> str:
        self.go(f"/{what}/new")
        self.page.get_by_label("Name", exact=True).fill(name)
        for label, value in fields.items():
            self.page.get_by_label(label, exact=True).fill(value)
        self.page.get_by_label("File", exact=True).set_input_files(self.files / file)
        self.press("Upload")
        self.page.wait_for_url(f"{self.url}/{what}/*_*")
        assert name in self.heading()
        return str(self.page.url).rpartition("/")[2]

    def evaluate(self, model: str, data: str) -> str:
        self.go(f"/evaluate?model={model}&data={data}")
        self.page.get_by_label("eps", exact=True).fill("0.1")
        self.page.get_by_label("Rows", exact=True).fill("200")
        self.press("Start")
        return self.watched()

    def watched(self) -> str:
        """The job whose page is open, when it has ended."""
        self.page.wait_for_url(f"{self.url}/jobs/job_*")
        self.page.get_by_role("button", name="Read the report").wait_for(timeout=PATIENCE)
        return str(self.page.url).rpartition("/")[2]

    def download(self, name: str, place: Path) -> Path:
        with self.page.expect_download() as waited:
            self.page.get_by_role("link", name=name, exact=True).click()
        target = place / name
        waited.value.save_as(target)
        return target

    def shoot(self, folder: Path, paths: dict[str, str]) -> None:
        """Every page in both widths and both schemes; on a phone nothing may stick out at the side."""
        for scheme in ("light", "dark"):
            for size, viewport in SIZES.items():
                self.page.emulate_media(color_scheme=scheme)
                self.page.set_viewport_size(viewport)
                for name, path in paths.items():
                    self.go(path)
                    wide = self.page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= viewport["width"], f"{path} is {wide} wide on a {size}"
                    self.page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)


def test_everything_a_user_does(browser: Any, running: Stack, files: Path, tmp_path: Path) -> None:
    user = User(browser, running, files)
    user.go("/jobs")
    assert "/login" in user.page.url
    user.log_in()
    assert "svc_" not in user.page.url
    model = user.upload("models", "net one", "net.pt2")
    data = user.upload("datasets", "digits", "digits.npz", Bounds="0,1")

    first = user.evaluate(model, data)
    assert user.polls, "the page of a running job did not keep itself up to date"
    user.page.get_by_role("button", name="Read the report").click()
    assert user.page.frame_locator("iframe").locator("h1").inner_text()
    assert "robust under linf 0.1" in user.page.locator("main").inner_text()
    witnesses = user.download("examples.npz", tmp_path)
    assert len(np.load(witnesses)["row"])
    assert {"manifest.json", "report.json", "model.pt2", "data.npz"} <= set(
        zipfile.ZipFile(user.download("report.zip", tmp_path)).namelist()
    )

    user.go(f"/models/{model}")
    user.page.get_by_text("For a README").click()
    badge = user.page.locator("code.secret").inner_text().partition("(")[2].rstrip(")")
    stranger = browser.new_context().new_page()
    assert stranger.goto(badge).status == 200
    assert "robust (linf 0.1)" in stranger.content()
    assert "/login" in stranger.goto(f"{user.url}/models/{model}").url

    user.go(f"/certify?model={model}&data={data}&eps=0.01&method=interval&rows=50&suite=quick")
    user.press("Start")
    certified = user.watched()
    user.page.get_by_role("button", name="Read the report").click()
    assert "Certified: " in user.page.locator("main").inner_text()
    user.go(f"/craft?model={model}&data={data}&eps=0.1&rows=50")
    user.press("Start")
    crafted = user.watched()
    with user.page.expect_download() as waited:
        user.press("Download the examples")
    waited.value.save_as(tmp_path / "crafted.npz")
    assert np.load(tmp_path / "crafted.npz")["x"].shape == (50, 1, 8, 8)

    user.go(f"/retrain?model={model}&data={data}")
    user.page.locator("#defense-pgd").uncheck()
    user.page.locator("#defense-fast").check()
    user.page.get_by_label("eps", exact=True).fill("0.1")
    user.page.get_by_label("Epochs", exact=True).fill("2")
    user.press("Start")
    retrained = user.watched()
    user.page.get_by_role("link", name="net one fast").first.click()
    second = user.evaluate(user.page.url.rpartition("/")[2].partition("?")[0], data)

    user.go(f"/compare?before={first}&after={second}")
    assert "McNemar" in user.page.locator("main").inner_text()
    folder = Path(SHOTS) if SHOTS else tmp_path
    pages = {"overview": "/", "models": "/models", "model": f"/models/{model}", "model_new": "/models/new", "datasets": "/datasets"}
    pages |= {"dataset": f"/datasets/{data}", "jobs": "/jobs", "job": f"/jobs/{first}", "retrained": f"/jobs/{retrained}"}
    pages |= {
        "report": f"/jobs/{first}/report",
        "retrain_report": f"/jobs/{retrained}/report",
        "workers": "/workers",
        "settings": "/settings",
    }
    pages |= {name: f"/{name}" for name in ("evaluate", "retrain", "certify", "craft")}
    pages |= {"certified": f"/jobs/{certified}/report", "crafted": f"/jobs/{crafted}/report"}
    pages |= {"compare": f"/compare?before={first}&after={second}"}
    user.shoot(folder, pages)
    assert user.complaints == []

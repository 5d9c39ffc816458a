"""A browser without scripts: it keeps cookies, and sends forms as they stand in the page."""

import re
from collections.abc import Callable, Iterator
from html import unescape

import httpx2
import pytest

from ..conftest import Served

TOKEN = re.compile(r'name="csrf" value="([^"]+)"')


class Browser:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.http = httpx2.Client(base_url=served.url, timeout=40, headers={"Accept": "text/html"})
        self.token = ""

    def get(self, path: str) -> httpx2.Response:
        answer = self.http.get(path)
        if found := TOKEN.search(answer.text if "text/html" in answer.headers.get("content-type", "") else ""):
            self.token = found[1]
        return answer

    def post(self, path: str, *, file: tuple[str, bytes] | None = None, token: str | None = None, **fields: object) -> httpx2.Response:
        data = {"csrf": self.token if token is None else token, **fields}
        return self.http.post(path, data=data, files={"file": file} if file else None)

    def log_in(self, key: str | None = None) -> "Browser":
        self.get("/login")
        assert self.post("/login", key=key or self.served.key).status_code == 303
        assert self.get("/settings").status_code == 200
        return self


def faults(answer: httpx2.Response) -> list[str]:
    """What is said at the fields of a form."""
    return [unescape(said) for said in re.findall(r'<p class="fault"[^>]*>([^<]*)</p>', answer.text)]


Visit = Callable[[Served], Browser]


@pytest.fixture
def visit() -> Iterator[Visit]:
    """Makes browsers, and closes them in the end."""
    made: list[Browser] = []

    def one(served: Served) -> Browser:
        made.append(Browser(served))
        return made[-1]

    yield one
    for each in made:
        each.http.close()


@pytest.fixture
def stranger(shared: Served, visit: Visit) -> Browser:
    return visit(shared)


@pytest.fixture
def browser(stranger: Browser) -> Browser:
    return stranger.log_in()

import os
import signal
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import structlog

from sparring import cli
from sparring.contract.states import Progress, Reason
from sparring.sdk import Client
from sparring.storage import attempts, jobs
from tests.reports import factory
from tests.service.conftest import Served, npz, pt2, serving, settings_in


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No service of the machine is found by accident."""
    for name in [name for name in os.environ if name.startswith("SPARRING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path / "no-stack"))


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    """A real server of its own, without workers; its log does not mix with what the commands print."""
    with structlog.testing.capture_logs(), serving(settings_in(tmp_path / "served")) as one:
        yield one


@pytest.fixture
def client(served) -> Iterator[Client]:
    with Client(served.url, served.key) as one:
        yield one


@pytest.fixture
def files(tmp_path):
    """A model file and a dataset file the service takes."""
    model, data = tmp_path / "net.pt2", tmp_path / "data set(1).npz"
    model.write_bytes(pt2())
    data.write_bytes(npz())
    return model, data


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def sparring(served, tmp_path, monkeypatch, capsys):
    """`sparring("jobs", "list")` runs the command against the server, in this process because starting one takes long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARRING_KEY", served.key)
    monkeypatch.setenv("COLUMNS", "200")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments, url=served.url):
        monkeypatch.setenv("SPARRING_URL", url)
        monkeypatch.setattr("sys.argv", ["sparring", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


FILES = {
    "report.json": factory.report().model_dump_json().encode(),
    "report.html": b"<!doctype html><title>page</title>",
    "report.md": b"# words",
    "rows.csv": b"row\n",
    "rows.parquet": b"PAR1",
    "examples.npz": b"PK examples",
    "crafted.npz": b"PK crafted",
}


class Worker(threading.Thread):
    """Plays the worker for the first job that is submitted: some progress, then files, or a reason why not."""

    def __init__(self, served: Served, reason: Reason | None = None, files: dict[str, bytes] = FILES) -> None:
        super().__init__()
        self.served, self.reason, self.files = served, reason, files
        self.stop = threading.Event()

    def run(self):
        engine = self.served.engine
        while not self.stop.is_set():
            found = jobs.list_jobs(engine, "default", limit=1, cursor=None, state="queued").items
            if found:
                break
            self.stop.wait(0.02)
        else:
            return
        job = found[0]
        attempts.claim(engine, job.id, job.attempt, worker="test", lease=60)
        attempts.beat(engine, job.id, job.attempt, lease=60, progress=Progress(phase="attack", done=5, total=10))
        blobs = {name: self.served.folder.put([content]) for name, content in ({} if self.reason else self.files).items()}
        state = "failed" if self.reason else "succeeded"
        attempts.finish(engine, job.id, job.attempt, state=state, reason=self.reason, files=blobs)


@pytest.fixture
def worker(served):
    """`worker()` starts one; it ends with the test."""
    started = []

    def start(**given):
        started.append(Worker(served, **given))
        started[-1].start()

    yield start
    for one in started:
        one.stop.set()
        one.join()

import signal
from typing import NamedTuple

import pytest

from sparring import cli
from tests.client.gate import sample


class Done(NamedTuple):
    code: int
    out: list[str]
    err: str


@pytest.fixture
def gate(served, tmp_path, monkeypatch, capsys):
    """`gate("gate.yaml")` runs `sparring gate` against the server, in a folder with a policy's files, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARRING_KEY", served.key)
    monkeypatch.setenv("COLUMNS", "200")
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments, url=served.url):
        monkeypatch.setenv("SPARRING_URL", url)
        monkeypatch.setattr("sys.argv", ["sparring", "gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out.splitlines(), err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def policy(files, tmp_path):
    """`policy("id: a, metric: clean, min: 0.5")` writes gate.yaml beside the files it names."""
    model, data = files
    model.rename(tmp_path / "net.pt2")
    data.rename(tmp_path / "data.npz")
    return lambda *rules, more="": sample.policy(tmp_path, *rules, more=more).path.name


@pytest.fixture
def evaluates(worker):
    """`evaluates(right=…, stood=…)` plays the worker for the next job: its report counts so many rows."""

    def play(*given, rows=None, **more):
        found = sample.evidence(*given, **more)
        files = {"report.json": found.report.model_dump_json().encode(), "rows.csv": rows or sample.rows_csv(found), "report.html": b"<p>"}
        worker(files=files)

    return play

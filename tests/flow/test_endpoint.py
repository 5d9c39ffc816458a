"""The whole stack against the example server: registered, attacked, and the endpoint gone and back, by the command line alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flow.stack import Stack, eventually, stack
from workers.onnx_nets import exported
from workers.orders import digits, network, trained

SPARRING = str(Path(sys.executable).with_name("sparring"))
SERVER = Path(__file__).parents[2] / "examples" / "endpoint_server.py"
TOKEN = "s3cr3t-0f-the-flow"


class Example:
    """The example server, which may be killed and started again on its port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url, self._folder, self._port = f"http://127.0.0.1:{port}", folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-P", str(SERVER), str(self._folder / "model.onnx"), "--port", str(self._port)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env={**os.environ, "TOKEN": TOKEN}, stderr=log)
        lines = self._folder / "server.log"
        before = lines.read_text().count("running on")
        eventually(lambda: lines.read_text().count("running on") > before, 60, "the example server")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def example(tmp_path: Path, free_port: int) -> Iterator[Example]:
    exported(trained(network(), epochs=3), tmp_path / "model.onnx")
    one = Example(tmp_path, free_port)
    one.start()
    yield one
    one.kill()


def sparring(running: Stack, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SPARRING_URL": running.url, "SPARRING_KEY": running.key, "COLUMNS": "200"}
    return subprocess.run([SPARRING, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=200)


def test_an_endpoint_is_attacked_and_a_job_outlives_it(example: Example, tmp_path: Path) -> None:
    x, y = digits()
    np.savez(tmp_path / "data.npz", x=x[:60], y=y[:60])
    with stack(tmp_path / "data") as running:
        flags = ("--v2", "model", "--input", "x", "--output", "y", "--header", "Authorization=secret:TOKEN", "--rate", "150")
        refused = sparring(running, "models", "add-endpoint", example.url, *flags)
        assert refused.returncode == 2
        assert "not among the endpoints" in refused.stderr
        grants = {"default": [{"origin": example.url, "secrets": {"TOKEN": f"Bearer {TOKEN}"}}]}
        (tmp_path / "data" / "endpoints.json").write_text(json.dumps(grants))
        added = sparring(running, "models", "add-endpoint", example.url, *flags, "--json")
        assert added.returncode == 0, added.stderr
        model = json.loads(added.stdout)["id"]
        square = ("--eps", "0.1", "--attack", "square:queries=25")
        white = sparring(running, "evaluate", model, tmp_path / "data.npz", "--eps", "0.1", "--attack", "pgd")
        assert white.returncode != 0
        assert "pgd needs a gradient" in white.stderr
        data = running.client.datasets.upload(tmp_path / "data.npz").id
        threat = {"norm": "linf", "eps": 0.1}
        job = running.submit(model=model, data=data, threats=[threat], attacks=[{"kind": "square", "queries": 25}])
        ledger = running.data / "work" / job / "ledger.jsonl"
        eventually(lambda: ledger.exists() and ledger.read_bytes().count(b"got") > 250, 60, "some answers")
        example.kill()
        failed = running.ended(job)
        assert failed.reason
        assert (failed.state, failed.reason.code, failed.reason.detail) == ("failed", "endpoint_failed", "unreachable")
        learnt = ledger.read_bytes().count(b"got")
        example.start()
        retried = sparring(running, "jobs", "retry", job)
        assert retried.returncode == 0, retried.stderr
        assert running.ended(job).state == "succeeded"
        report = running.client.jobs.report(job)
        answers = [line for line in ledger.read_bytes().splitlines() if b'"got"' in line]
        assert len(answers) == report.cost.asked, "each row is answered once, before the break or after it"
        assert learnt < len(answers)
        done = sparring(running, "evaluate", model, data, *square, "--asked", "100", "--json")
        assert done.returncode == 2
        assert "asked = 100" in done.stderr
        kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name != "endpoints.json"]
        assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []

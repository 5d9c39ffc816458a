"""What tests of endpoints share: a counting target, and a job on an endpoint, run by a real horse with a real runner."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sqlalchemy import Engine
from torch import nn
from workers.orders import digits, trained, wait_for

from sparring.contract.endpoints import ENDPOINT
from sparring.contract.jobs import JOB
from sparring.contract.report import Report
from sparring.contract.resources import JobInfo
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.storage import attempts, jobs, uploads
from sparring.storage.artifacts import Folder
from sparring.storage.settings import Settings
from sparring.workers.horse import Attempt
from sparring.workers.spare import Runner, Stable

SQUARE = {"kind": "square", "queries": 30}


def weights(path: Path) -> Path:
    """Of a linear classifier of digits, (64, 10)."""
    model = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)), epochs=3)
    np.save(path, model[1].weight.detach().numpy().T.astype(np.float64))
    return path


class Counting:
    """The counting target, which may be killed and started again on the same port."""

    def __init__(self, folder: Path, matrix: Path, latency: float = 0.0) -> None:
        self.log, self._matrix, self._latency, self.port = folder / "target.jsonl", matrix, latency, 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.log.touch()
        before = len(self.told("port"))
        command = [sys.executable, "-P", str(Path(__file__).with_name("target.py")), str(self.log), str(self.port)]
        self._process = subprocess.Popen([*command, str(self._matrix), str(self._latency)])
        wait_for(lambda: len(self.told("port")) > before, 60)
        self.port = self.told("port")[-1]["port"]

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def told(self, what: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().split("\n")[:-1]
        return [line for line in map(json.loads, lines) if what in line]

    @property
    def sent(self) -> int:
        """Requests that arrived."""
        return len(self.told("asked"))

    @property
    def asked(self) -> int:
        """Rows that arrived."""
        return sum(len(line["asked"]) for line in self.told("asked"))

    def digests(self, what: str) -> list[str]:
        return [digest for line in self.told(what) for digest in line[what]]

    def endpoint(self, path: str = "/predict", **more: Any) -> dict[str, Any]:
        return {"kind": "endpoint", "url": self.origin + path, "response": "/scores", "retries": 2, **more}


@contextmanager
def counting(folder: Path, matrix: Path, latency: float = 0.0) -> Iterator[Counting]:
    target = Counting(folder, matrix, latency)
    target.start()
    try:
        yield target
    finally:
        target.kill()


class Case:
    """An endpoint, some digits, and jobs on them."""

    def __init__(self, engine: Engine, folder: Path, endpoint: dict[str, Any], rows: int = 40, classes: int | None = None) -> None:
        self.engine, self.settings = engine, Settings(data=folder, lease=60.0, beat=0.2)
        self.runner: Runner | None = None
        spec = ModelSpec(endpoint=ENDPOINT.validate_python(endpoint), classes=classes)
        assert spec.endpoint
        self.allow({"origin": spec.endpoint.origin})
        artifacts = Folder(self.settings.artifacts)
        blob = artifacts.put([spec.endpoint.model_dump_json().encode()])
        self.model = uploads.add_model(engine, project="default", name="m", blob=blob, format="endpoint", spec=spec)
        x, y = digits()
        np.savez(folder / "data.npz", x=x[:rows], y=y[:rows])
        blob = artifacts.put([(folder / "data.npz").read_bytes()])
        self.data = uploads.add_dataset(engine, project="default", name="d", blob=blob, format="npz", spec=DataSpec())

    def allow(self, *grants: dict[str, Any]) -> None:
        self.settings.grants.parent.mkdir(parents=True, exist_ok=True)
        self.settings.grants.write_text(json.dumps({"default": grants}))

    def submit(self, **changes: Any) -> str:
        job = {"kind": "evaluate", "model": self.model.id, "data": self.data.id, "threats": [{"norm": "linf", "eps": 0.1}]}
        return jobs.accept(self.engine, JOB.validate_python(job | {"attacks": [SQUARE]} | changes))[0].id

    def serve(self, job: str) -> JobInfo:
        """Run the attempt that is queued, to its end."""
        attempt = jobs.get(self.engine, "default", job).attempt
        claim = attempts.claim(self.engine, job, attempt, worker="w", lease=60.0)
        assert claim
        self.runner = Stable("cpu", 2).ready()
        try:
            Attempt(self.settings, self.engine, claim, self.runner).serve()
        finally:
            self.runner.kill()
        return jobs.get(self.engine, "default", job)

    def run(self, **changes: Any) -> Report:
        return self.report(self.serve(self.submit(**changes)))

    def report(self, info: JobInfo) -> Report:
        assert info.state == "succeeded", info.reason
        (file,) = (file for file in info.artifacts if file.name == "report.json")
        with Folder(self.settings.artifacts).open(file.sha256) as blob:
            return Report.model_validate_json(blob.read())


def linear(matrix: Path, x: np.ndarray) -> torch.Tensor:
    """What the target answers for rows in [0, 1]."""
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float64) @ np.load(matrix))

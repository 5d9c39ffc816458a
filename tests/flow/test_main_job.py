"""The main job over real HTTP and over the queue, and what a stranger may send instead of a model."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx2
import numpy as np
import pytest
from flow.conftest import Ready
from flow.stack import eventually
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from workers.orders import digits

from sparring.contract.queue import ENTRY, INTAKE
from sparring.contract.report import Report
from sparring.sdk import Client

SPARRING = str(Path(sys.executable).with_name("sparring"))
QUICK = {"kind": "evaluate", "threats": [{"norm": "linf", "eps": "8/255"}], "rows": 60}


def test_by_queue_without_importing_sparring(ready: Ready) -> None:
    """Any RQ client with the JSON serializer; the report comes over HTTP, found by the RQ id."""
    with Redis.from_url(ready.stack.environment()["SPARRING_REDIS_URL"]) as connection:
        queue = Queue(INTAKE, connection=connection, serializer=JSONSerializer)
        sent = queue.enqueue(ENTRY, {**QUICK, "model": ready.model, "data": ready.data})
        headers = {"Authorization": f"Bearer {ready.stack.key}"}
        with httpx2.Client(base_url=ready.stack.url, headers=headers, trust_env=False) as web:
            found = eventually(lambda: web.get("/v1/jobs", params={"key": sent.id}).json()["items"], 30, "the job")
            assert len(found) == 1
            job = found[0]["id"]
            ready.stack.ended(job)
            report = Report.model_validate_json(web.get(f"/v1/jobs/{job}/report").content)
    assert report.clean.total == 60
    assert report.threats[0].worst.count <= report.clean.count


@pytest.mark.slow
def test_the_same_example_as_a_script(ready: Ready, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "queue_submit.py"
    (tmp_path / "job.json").write_text(json.dumps({**QUICK, "model": ready.model, "data": ready.data}))
    where = ["--redis", ready.stack.environment()["SPARRING_REDIS_URL"], "--url", ready.stack.url, "--key", ready.stack.key]
    command = [sys.executable, str(script), "job.json", *where, "--out", "report.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert Report.model_validate_json((tmp_path / "report.json").read_bytes()).clean.total == 60
    assert done.returncode == 0, done.stderr
    assert "sparring" not in [line.split()[1] for line in script.read_text().splitlines() if line.startswith(("import ", "from "))]


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def hostile(model: bytes, canary: Path) -> dict[str, bytes]:
    return {
        "pickle": pickle.dumps(Canary(canary)),
        "html": b"<!doctype html><html><body>404</body></html>",
        "truncated": model[: len(model) // 2],
        "empty": b"",
        "text": b"hello",
        "zip of a pickle": _zip(**{"archive/data.pkl": pickle.dumps(Canary(canary)), "archive/version": b"3"}),
        "pt2 without graph": _zip(**{"m/archive_format": b"pt2", "m/archive_version": b"0"}),
    }


def test_hostile_models_are_refused_with_code_and_hint_and_the_worker_serves_on(ready: Ready, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, content in hostile((ready.files / "model.pt2").read_bytes(), canary).items():
        headers = {"Authorization": f"Bearer {ready.stack.key}"}
        answer = httpx2.post(f"{ready.stack.url}/v1/models", params={"name": "evil"}, content=content, headers=headers, trust_env=False)
        if answer.status_code == 201:  # nothing to see from outside: the runner refuses it
            job = ready.stack.submit(**QUICK, model=answer.json()["id"], data=ready.data)
            info = ready.stack.ended(job)
            assert info.state == "failed", name
            assert info.reason
            assert info.reason.code in ("bad_model", "unsupported"), name
            assert info.reason.message
            assert info.reason.hint, name
        else:
            assert answer.status_code == 422, (name, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"], name
    assert not canary.exists()
    assert ready.stack.ended(ready.stack.submit(**QUICK, model=ready.model, data=ready.data)).state == "succeeded"


@pytest.mark.slow
def test_bad_data_are_refused_with_code_and_hint(ready: Ready, tmp_path: Path) -> None:
    x, y = digits()
    bad = {
        "objects": {"x": np.array([{"a": 1}] * 10, dtype=object), "y": y[:10]},
        "labels": {"x": x[:10], "y": y[:10] + 90},
        "undeclared": {"x": x[:10] / 255, "y": y[:10]},
        "lengths": {"x": x[:10], "y": y[:9]},
    }
    for name, arrays in bad.items():
        np.savez(tmp_path / f"{name}.npz", allow_pickle=True, **arrays)
        data = ready.stack.client.datasets.upload(tmp_path / f"{name}.npz").id
        info = ready.stack.ended(ready.stack.submit(**QUICK, model=ready.model, data=data))
        assert (info.state, info.reason.code if info.reason else "") == ("failed", "bad_data"), name
        assert info.reason
        assert info.reason.hint, name


def test_the_command_evaluates_files(ready: Ready, tmp_path: Path) -> None:
    environment = {**os.environ, "SPARRING_URL": ready.stack.url, "SPARRING_KEY": ready.stack.key}
    command = [SPARRING, "evaluate", str(ready.files / "model.pt2"), str(ready.files / "data.npz")]
    options = ["--eps", "0.05", "--eps", "8/255", "--attack", "pgd:steps=5", "--attack", "fgsm", "--rows", "50", "--json"]
    outputs = [option for name in ("r.html", "r.json", "r.md", "rows.csv", "rows.parquet", "examples.npz") for option in ("-o", name)]
    done = subprocess.run([*command, *options, *outputs], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = Report.model_validate(json.loads(done.stdout))
    assert [result.threat.eps for result in report.threats] == [0.05, "8/255"]
    assert Report.model_validate_json((tmp_path / "r.json").read_bytes()) == report
    assert (tmp_path / "r.html").read_text().lstrip().startswith("<!")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["evaluate"], 4),
        (["evaluate", "absent.pt2", "absent.npz", "--eps", "0.1"], 4),
        (["nonsense"], 4),
        (["evaluate", "MODEL", "DATA", "--eps", "-1"], 4),
        (["evaluate", "MODEL", "DATA", "--eps", "0.1", "--attack", "pgd:stepz=3"], 4),
        (["evaluate", "MODEL", "DATA", "--eps", "0.1", "-o", "report.docx"], 4),
        (["evaluate", "DATA", "DATA", "--eps", "0.1"], 2),
    ],
)
def test_exit_codes(ready: Ready, tmp_path: Path, arguments: list[str], code: int) -> None:
    files = {"MODEL": str(ready.files / "model.pt2"), "DATA": str(ready.files / "data.npz")}
    environment = {**os.environ, "SPARRING_URL": ready.stack.url, "SPARRING_KEY": ready.stack.key}
    command = [SPARRING, *(files.get(word, word) for word in arguments)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_deleting_waits_until_nothing_uses_it(ready: Ready, tmp_path: Path) -> None:
    client: Client = ready.stack.client
    x, y = digits()
    np.savez(tmp_path / "own.npz", x=x[640:700], y=y[640:700])
    data = client.datasets.upload(tmp_path / "own.npz").id
    model = client.models.upload(ready.files / "model.pt2").id
    endless = {"threats": [{"norm": "linf", "eps": 0.03}], "attacks": [{"kind": "pgd", "steps": 100_000}]}
    running, queued = (ready.stack.submit(**endless, model=model, data=data) for _ in range(2))
    headers = {"Authorization": f"Bearer {ready.stack.key}"}
    with httpx2.Client(base_url=f"{ready.stack.url}/v1", headers=headers, trust_env=False) as web:
        eventually(lambda: ready.stack.info(running).state == "running", what="the job at work")
        assert ready.stack.info(queued).state == "queued"
        used = [f"/datasets/{data}", f"/models/{model}", f"/jobs/{running}", f"/jobs/{queued}"]
        assert [web.delete(path).status_code for path in used] == [409] * 4
        for job in (queued, running):
            client.jobs.cancel(job)
            assert ready.stack.ended(job).state == "cancelled"
        assert [web.delete(path).status_code for path in reversed(used)] == [204] * 4
        assert [web.get(path).status_code for path in used] == [404] * 4

"""The real stack, started as a user starts it."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from sparring.service import embedded
from sparring.service.supervisor import StartError
from sparring.storage import database, keys, queue
from sparring.storage.settings import Settings
from sparring.storage.tables import DEFAULT_PROJECT

from .conftest import Eventually, npz, pt2

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "REDIS_URL" and not name.startswith("SPARRING_")}


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "sparring.service.embedded", "--data", str(data), "--port", "0", "--no-worker", *arguments]


def children(pid: int) -> dict[str, int]:
    """Live child processes by what they are."""
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        line = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        found |= {name: child for name in ("redis-server", "service.api", "workers.dispatcher") if name in line}
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def stack(data: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], httpx2.Client]]:
    process = subprocess.Popen(
        command(data, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    with process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        told = json.loads(line)
        assert json.loads((data / "stack.json").read_text()) == told
        try:
            with httpx2.Client(base_url=told["url"], headers={"Authorization": f"Bearer {told['key']}"}, timeout=30) as client:
                yield process, client
        finally:
            process.terminate()
            process.wait()


def refused(data: Path, *arguments: str, **environment: str) -> str:
    """What a stack that cannot start says."""
    ended = subprocess.run([*command(data), *arguments], capture_output=True, text=True, env=ENVIRONMENT | environment, timeout=120)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.slow
def test_a_stack_from_start_to_end(tmp_path: Path, eventually: Eventually) -> None:
    data = tmp_path / "data"
    with stack(data) as (process, client):
        with queue.connect(json.loads((data / "stack.json").read_text())["redis"]) as connection:
            assert queue.ping(connection)
        assert client.get("/readyz").json()["checks"]["queue"]["ok"]
        model = client.post("/v1/models", content=pt2()).json()["id"]
        dataset = client.post("/v1/datasets", content=npz()).json()["id"]
        job = {"kind": "evaluate", "model": model, "data": dataset, "threats": [{"norm": "linf", "eps": 0.1}]}
        accepted = client.post("/v1/jobs", json=job)
        assert "no live worker" in client.get(accepted.headers["Location"]).json()["note"]
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*"))}
        assert {"stack.json", "records.db", "api.log", "redis"} <= {path.name for path in modes}
        assert [path for path, mode in modes.items() if mode & 0o077 and not path.is_relative_to(data / "artifacts")] == []
        assert "a stack runs on" in refused(data)
        pids = eventually(lambda: len(children(process.pid)) == 3 and children(process.pid))
        key = client.headers["Authorization"]
    assert process.returncode == 0
    assert all(gone(pid) for pid in pids.values())
    assert not (data / "stack.json").exists()
    with stack(data) as (_, client):
        assert [one["id"] for one in client.get("/v1/models").json()["items"]] == [model]
        assert client.headers["Authorization"] == key
        assert [one["name"] for one in client.get("/v1/keys").json()] == ["embedded"]


def test_a_stack_waits_for_one_that_goes_down_and_yields_to_one_that_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(lock, fcntl.LOCK_UN))
        with embedded._locked(tmp_path):
            pass
        fcntl.flock(lock, fcntl.LOCK_EX)
        (tmp_path / "stack.json").touch()
        monkeypatch.setattr(embedded, "NOTED", -1.0)
        with pytest.raises(StartError, match="runs on"), embedded._locked(tmp_path):
            pass


@pytest.mark.slow
def test_every_part_comes_back_and_all_go_with_the_supervisor(tmp_path: Path, eventually: Eventually) -> None:
    with stack(tmp_path) as (process, client):
        before = eventually(lambda: len(children(process.pid)) == 3 and children(process.pid))
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        after = eventually(lambda: len(now := children(process.pid)) == 3 and not set(now.values()) & set(before.values()) and now)
        assert client.get("/v1/models").json()["items"] == []
        eventually(lambda: client.get("/readyz").json()["checks"]["queue"]["ok"])
        process.kill()
        process.wait()
        eventually(lambda: all(gone(pid) for pid in after.values()))
        key = client.headers["Authorization"]
    with stack(tmp_path) as (_, client):
        assert client.headers["Authorization"] == key


def test_the_key_stays_until_it_is_revoked_or_lost(settings: Settings) -> None:
    key = embedded._key(settings)
    kept = settings.data / "stack.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert embedded._key(settings) == key
    engine = database.connect(settings.database)
    for loss in ("deleted", "damaged", "revoked"):
        if loss == "revoked":
            keys.revoke(engine, DEFAULT_PROJECT, key[4:28])
        else:
            kept.unlink()
        if loss == "damaged":
            kept.write_text("svc_é")
        fresh = embedded._key(settings)
        assert keys.verify(engine, fresh)
        assert keys.verify(engine, key) is None
        key = fresh
    engine.dispose()


def test_it_ends_when_stdin_does(tmp_path: Path, eventually: Eventually) -> None:
    with stack(tmp_path, "--until-eof") as (process, _):
        pids = eventually(lambda: len(children(process.pid)) == 3 and children(process.pid))
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0
        assert all(gone(pid) for pid in pids.values())


@pytest.mark.slow
def test_a_deep_data_folder_gets_a_short_socket(tmp_path: Path) -> None:
    data = tmp_path / ("d" * 80) / ("e" * 80)
    with stack(data) as (_, client):
        assert client.get("/readyz").json()["checks"]["queue"]["ok"]


@pytest.mark.slow
def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in refused(tmp_path, "--port", str(port))
    assert "SPARRING_REDIS_URL (or REDIS_URL) does not answer" in refused(tmp_path, REDIS_URL=f"unix://{tmp_path}/none.sock")
    (tmp_path / "file").touch()
    assert "cannot be written to: " in refused(tmp_path / "file")
    assert "port" in refused(tmp_path, "--port", "99999")
    assert "there is no device 'bogus': say auto, cpu or a GPU such as cuda:0" in refused(tmp_path, "--device", "bogus")
    assert "SPARRING_ANONYMOUS" in refused(tmp_path, "--host", "0.0.0.0", SPARRING_ANONYMOUS="1")

"""A whole stack as a user starts it, and a look at its processes from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from sparring.contract.jobs import JOB
from sparring.contract.resources import EventInfo, JobInfo
from sparring.contract.states import FINAL
from sparring.errors import ServiceAway
from sparring.sdk import Client

LEASE, BEAT, ATTEMPTS = 3.0, 0.4, 3


def eventually(condition: Callable[[], Any], seconds: float = 60, what: str = "", pause: float = 0.05) -> Any:
    end = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        time.sleep(pause)
    return met


def _stat(pid: int) -> tuple[str, int]:
    """State and parent."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    return state, int(parent)


def tree(root: int) -> dict[int, str]:
    """Every live descendant and its command line."""
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = _stat(int(entry.name))
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)], words[int(entry.name)] = parent, line

    def under(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == root:
                return True
        return False

    return {pid: words[pid] for pid in parents if under(pid)}


class Stack:
    """A running stack, its client, and its processes by what they are."""

    def __init__(self, process: subprocess.Popen[bytes], told: dict[str, str]) -> None:
        self.process, self.url, self.key, self.data = process, told["url"], told["key"], Path(told["data"])
        self.client = Client(self.url, self.key)

    def processes(self, module: str) -> list[int]:
        """Exec'd processes of one module, oldest first; forks of the runner and the worker are told apart by their parents."""
        every = tree(self.process.pid)
        return sorted(pid for pid, line in every.items() if module in line)

    def worker(self) -> int:
        """The RQ parent: the worker whose parent is the supervisor."""
        return next(pid for pid in self.processes("sparring.workers.worker") if _stat(pid)[1] == self.process.pid)

    def horse(self) -> int:
        """RQ renames nothing here: the horse is the worker's fork, so it has the worker's command line."""
        parent = self.worker()
        return eventually(lambda: next((p for p in self.processes("sparring.workers.worker") if _stat(p)[1] == parent), 0), what="a horse")

    def runner(self) -> int:
        """The runner that is at work: the one that has forked row processes."""

        def busy() -> int:
            runners = self.processes("sparring.workers.runner")
            return next((pid for pid in runners if any(_stat(child)[1] == pid for child in runners)), 0)

        return eventually(busy, what="a runner at work")

    def redis(self) -> int:
        return next(pid for pid, line in tree(self.process.pid).items() if "redis-server" in line or "valkey-server" in line)

    def environment(self) -> dict[str, str]:
        """What the stack's own processes are given."""
        raw = Path(f"/proc/{self.worker()}/environ").read_bytes().split(b"\0")
        return dict(item.decode().split("=", 1) for item in raw if b"=" in item)

    def patient(self, call: Callable[[], Any]) -> Any:
        """Ask until the API answers: it may be the one that was killed."""

        def ask() -> Any:
            try:
                return (call(),)
            except ServiceAway:
                return None

        return eventually(ask, 30, "an answer of the API")[0]

    def info(self, job: str) -> JobInfo:
        return self.patient(lambda: self.client.jobs.get(job))

    def ended(self, job: str, seconds: float = 120) -> JobInfo:
        eventually(lambda: self.info(job).state in FINAL, seconds, f"the end of {job}")
        return self.info(job)

    def shards(self, job: str, attempt: int = 1) -> int:
        """How many shards an attempt has finished, or taken over."""
        return len(list((self.data / "work" / job / str(attempt) / "shards").glob("*.npz")))

    def under_way(self, job: str) -> None:
        """Wait until some shards are on disk; that not all are is for the caller to see in what was taken over."""
        eventually(lambda: self.shards(job), 60, "a shard")
        info = self.info(job)
        assert info.state == "running", info

    def events(self, job: str) -> list[EventInfo]:
        return self.patient(lambda: list(self.client.jobs.events(job)))

    def rows(self, job: str) -> bytes:
        response = httpx2.get(f"{self.url}/v1/jobs/{job}/rows.csv", headers={"Authorization": f"Bearer {self.key}"}, trust_env=False)
        assert response.status_code == 200, response.text
        return response.content

    def submit(self, **job: Any) -> str:
        return self.patient(lambda: self.client.jobs.submit(JOB.validate_python({"kind": "evaluate"} | job)).id)


@contextmanager
def stack(data: Path, *options: str, **environment: str) -> Iterator[Stack]:
    given = {
        name: value for name, value in os.environ.items() if name not in ("SPARRING_REDIS_URL", "REDIS_URL", "SPARRING_KEY", "SPARRING_URL")
    }
    given |= {"SPARRING_LEASE": str(LEASE), "SPARRING_BEAT": str(BEAT), "SPARRING_MAX_ATTEMPTS": str(ATTEMPTS)} | environment
    command = [
        sys.executable,
        "-P",
        "-m",
        "sparring.service.embedded",
        "--data",
        str(data),
        "--port",
        "0",
        "--until-eof",
        "--device",
        "cpu",
        *options,
    ]
    with subprocess.Popen(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, "the stack did not start"
        running = Stack(process, json.loads(line))
        try:
            yield running
        finally:
            running.client.close()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

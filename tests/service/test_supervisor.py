import os
import signal
import sys
from pathlib import Path

import pytest

from sparring.service import supervisor
from sparring.service.supervisor import Child, StartError, Supervisor

from .conftest import Eventually


def python(name: str, code: str, logs: Path) -> Child:
    return Child(name, [sys.executable, "-c", code], os.environ, logs)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_dies_is_started_again_and_that_is_said(tmp_path: Path, eventually: Eventually) -> None:
    said: list[str] = []
    keeper = Supervisor(said.append)
    child = python("sleeper", "import time; time.sleep(600)", tmp_path)
    keeper.start(child)
    first = child.pid
    assert first
    os.kill(first, signal.SIGKILL)

    def replaced() -> bool:
        keeper.tend()
        return child.alive and child.pid != first

    eventually(replaced)
    assert len(said) == 1
    assert "sleeper was killed by signal 9" in said[0]
    assert str(child.log) in said[0]
    keeper.stop()
    assert not child.alive


def test_what_dies_at_once_is_started_ever_more_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.01)
    said: list[str] = []
    keeper = Supervisor(said.append)
    child = python("hasty", "raise SystemExit(7)", tmp_path)
    child._delay = 0.01
    keeper.start(child)

    def four_deaths() -> bool:
        keeper.tend()
        return len(said) == 4

    eventually(four_deaths)
    assert all("hasty ended with 7" in line for line in said)
    assert child._delay == pytest.approx(0.16)
    keeper.stop()


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    keeper = Supervisor(print)
    with pytest.raises(StartError, match="no such file: model"):
        keeper.start(python("broken", "raise SystemExit('no such file: model')", tmp_path), ready=lambda: False)
    with pytest.raises(StartError, match="was not ready after 0 s"):
        keeper.start(python("slow", "import time; time.sleep(600)", tmp_path), ready=lambda: False, seconds=0.05)
    keeper.stop()


def test_what_does_not_listen_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 0.2)
    code = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""
    keeper = Supervisor(print)
    child = python("stubborn", code, tmp_path)
    keeper.start(child, ready=lambda: bool(child.last_words()))
    grandchild = int(child.last_words())
    keeper.stop()
    assert not child.alive
    eventually(lambda: gone(grandchild) or Path(f"/proc/{grandchild}/stat").read_text().split()[2] == "Z")


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 1000)
    keeper = Supervisor(print)
    child = python("talker", "print('x' * 2000, flush=True); import time; time.sleep(600)", tmp_path)
    keeper.start(child, ready=lambda: bool(child.last_words()))
    keeper.tend()
    assert child.log.read_bytes() == b""
    assert child.log.with_suffix(".log.1").stat().st_size == 2001
    keeper.stop()

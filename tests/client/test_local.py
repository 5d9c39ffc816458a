import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from sparring import local
from sparring.errors import ServiceAway, UsageProblem
from sparring.sdk import Client

STACK = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
print(json.dumps({"url": "http://127.0.0.1:9", "key": "svc_k", "data": str(folder)}), flush=True)
sys.stdin.read()
(folder / "ended").write_text("in order")
"""
"""Stands in for a stack: says that it is ready, and ends when nobody holds its stdin any more."""


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(program)` is started instead of the stack; the data folder is its argument."""

    def replace(program):
        monkeypatch.setattr(local, "command", lambda _module, *arguments: [sys.executable, "-c", program, arguments[1], *arguments])

    return replace


def test_the_data_folder_is_the_one_given_or_that_of_the_environment(tmp_path, monkeypatch):
    assert local.data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("SPARRING_DATA", "/somewhere")
    assert str(local.data_folder()) == "/somewhere"
    monkeypatch.delenv("SPARRING_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/x")
    assert str(local.data_folder()) == "/home/x/sparring"


def test_parts_are_started_by_this_interpreter_and_never_from_the_working_folder():
    assert local.command("service.embedded", "--x") == [sys.executable, "-P", "-m", "sparring.service.embedded", "--x"]


def test_a_running_stack_is_found(served, tmp_path):
    told = {"url": served.url, "key": served.key, "data": str(tmp_path), "redis": "unix:///r.sock"}
    (tmp_path / "stack.json").write_text(json.dumps(told))
    assert local.running(tmp_path) == local.Stack(served.url, served.key, tmp_path, "unix:///r.sock")


@pytest.mark.parametrize("note", [None, "", "{", "[]", '{"url": 1}', '{"url": "http://127.0.0.1:%d", "key": "k", "data": "/d"}'])
def test_a_stack_that_died_or_never_was_is_not_found(tmp_path, note, free_port):
    if note is not None:
        (tmp_path / "stack.json").write_text(note.replace("%d", str(free_port)))
    assert local.running(tmp_path) is None


def test_a_stack_lives_as_long_as_the_block(stand_in, tmp_path):
    stand_in(STACK)
    with local.started(tmp_path / "data") as (stack, process):
        assert stack == local.Stack("http://127.0.0.1:9", "svc_k", tmp_path / "data")
        assert process.poll() is None
    assert process.returncode == 0
    assert (tmp_path / "data" / "ended").read_text() == "in order"


def test_a_data_folder_is_nobody_else_s(stand_in, tmp_path):
    stand_in(STACK)
    with local.started(tmp_path / "data"):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_stack_is_taken_down_when_the_block_fails(stand_in, tmp_path):
    stand_in(STACK)
    with pytest.raises(KeyboardInterrupt), local.started(tmp_path) as (_, process):
        raise KeyboardInterrupt
    assert process.returncode == 0


def test_a_stack_that_does_not_end_by_itself_is_ended(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "STOP", 0.3)
    stand_in(STACK.replace("sys.stdin.read()", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"))
    with local.started(tmp_path) as (_, process):
        pass
    assert process.returncode == -signal.SIGKILL


def test_a_stack_that_does_not_start_tells_its_last_words(stand_in, tmp_path):
    stand_in("import sys; sys.exit('another stack holds the folder')")
    with pytest.raises(ServiceAway, match="could not be started:\nanother stack holds the folder"), local.started(tmp_path):
        pass


def test_a_stack_that_is_interrupted_before_it_is_ready_is_ended_at_once(stand_in, tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(local.subprocess, "Popen", lambda *given, **more: started.append(popen(*given, **more)) or started[-1])
    monkeypatch.setattr(local.select, "select", interrupted)
    stand_in("import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt), local.started(tmp_path):
        pass
    assert started[0].returncode == -signal.SIGTERM


def test_a_device_that_is_not_there_is_refused_before_a_stack_is_started(stand_in, tmp_path, monkeypatch, served):
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    stand_in("import sys; sys.exit('was started')")
    for device, said in (("gpu", "this machine has no GPU"), ("cuda:0", "no GPU"), ("bogus", "there is no such device")):
        with pytest.raises(UsageProblem, match=said), local.service(device):
            pass
    # Where a stack runs it is asked: it may get a worker with a GPU yet.
    (tmp_path / "stack.json").write_text(json.dumps({"url": served.url, "key": served.key, "data": str(tmp_path)}))
    with local.service("gpu") as client:
        assert list(client.models.list()) == []


def test_a_stack_that_is_never_ready_is_given_up(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "START", 0.2)
    stand_in("import sys; sys.stdin.read()")
    with pytest.raises(ServiceAway, match="not ready within"), local.started(tmp_path):
        pass


def test_a_data_folder_that_cannot_be_made_is_a_usage_problem(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageProblem, match="cannot be made"), local.started(tmp_path / "file" / "data"):
        pass


def test_the_service_is_that_of_the_environment_then_the_running_one_then_a_fresh_one(served, stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARRING_DATA", str(tmp_path))
    stand_in(STACK)
    with local.service() as client:
        assert client.url == "http://127.0.0.1:9"
    assert (tmp_path / "ended").exists()
    (tmp_path / "stack.json").write_text(json.dumps({"url": served.url, "key": served.key, "data": str(tmp_path)}))
    with local.service() as client:
        assert list(client.models.list()) == []
    monkeypatch.setenv("SPARRING_URL", "http://service.test")
    with local.service() as client:
        assert client.url == "http://service.test"


def test_the_client_outlives_a_proxy_in_the_environment(served, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(served.url, served.key) as client:
        assert list(client.models.list()) == []


def test_a_stack_dies_with_the_process_that_started_it(tmp_path, eventually):
    program = f"""
import os, signal, sys
from pathlib import Path
from sparring import local
local.command = lambda _module, *a: [sys.executable, "-c", {STACK!r}, a[1]]
with local.started(Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert eventually((tmp_path / "ended").exists)

"""The stack on this machine: found where it runs, else started for a while as a process of its own and taken down again."""

import json
import math
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from sparring.errors import ServiceAway, SparringError, UsageProblem
from sparring.sdk import Client
from sparring.show import say
from sparring.wire import Wire

START = 120.0
"""Seconds a stack may take to come up: on a busy machine torch alone takes many."""
STOP = 40.0
"""Seconds it may take to end."""


class Stack(NamedTuple):
    """A stack that answers."""

    url: str
    key: str
    data: Path
    redis: str = ""
    """URL of its queue."""


def data_folder(given: Path | None = None) -> Path:
    """Where a stack on this machine keeps things: as given, else SPARRING_DATA, else the user's data home."""
    home = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return given or Path(os.environ.get("SPARRING_DATA") or home / "sparring")


def cache_folder() -> Path:
    """Where what can be made again is kept: the user's cache home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparring"


def _stack(text: str) -> Stack:
    told = json.loads(text)
    return Stack(told["url"], told["key"], Path(told["data"]), told.get("redis", ""))


def running(data: Path) -> Stack | None:
    """The stack that runs on a data folder; None where there is none, or only the note of one that died."""
    try:
        stack = _stack((data / "stack.json").read_text(encoding="utf-8"))
        wire = Wire(stack.url, stack.key)
        try:
            wire.request("GET", "/healthz", timeout=5.0)
        finally:
            wire.close()
    except (OSError, ValueError, KeyError, TypeError, SparringError):
        return None
    return stack


def key_hint() -> str:
    """Where a key is to be had, for who has none or a wrong one."""
    note = data_folder() / "stack.json"
    return f"Set SPARRING_KEY to a key of that service: `sparring up` prints one, and while it runs that one stands in {note} too"


def check_device(device: str) -> None:
    """UsageProblem for a device that a worker of this machine cannot have: `auto`, `cpu`, `gpu` or `cuda:N`."""
    if not re.fullmatch(r"auto|cpu|gpu|cuda(:\d{1,3})?", device):
        raise UsageProblem(f"--device {device}: there is no such device", "Say auto, cpu, gpu, or one GPU such as cuda:0")
    # As the worker decides it.
    there = Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")
    if device not in ("auto", "cpu") and not there:
        hint = "Leave --device out to attack on the CPU, or name a service that has a GPU in SPARRING_URL"
        raise UsageProblem(f"--device {device}: this machine has no GPU, or hides it", hint)


def age(data: Path) -> float:
    """Seconds since the stack that runs on a data folder was ready; infinite where there is none."""
    try:
        return time.time() - (data / "stack.json").stat().st_mtime
    except OSError:
        return math.inf


def command(module: str, *arguments: str) -> list[str]:
    """How a part of Sparring is started as a process: by this interpreter, never with the working folder on its path."""
    return [sys.executable, "-P", "-m", f"sparring.{module}", *arguments]


def _last_words(log: IO[bytes] | None) -> str:
    if log is None:
        return ""
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return "\n".join(lines[-5:])


def _take_down(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    for end in (None, process.terminate, process.kill):
        if end:
            end()
        try:
            process.wait(STOP)
            return
        except subprocess.TimeoutExpired:
            continue


def _ready(process: subprocess.Popen[bytes], log: IO[bytes] | None) -> Stack:
    assert process.stdout
    came, _, _ = select.select([process.stdout], [], [], START)
    line = process.stdout.readline().decode() if came else ""
    try:
        return _stack(line)
    except (ValueError, KeyError, TypeError):
        why = _last_words(log)
    said = f":\n{why}" if why else ""
    if line or came:
        hint = "Why stands above" if log is None else "`sparring doctor` says what is missing"
        raise ServiceAway(f"The local stack could not be started{said}", hint)
    raise ServiceAway(f"The local stack was not ready within {START:.0f} s{said}", "Try again, or look at `sparring doctor`")


@contextmanager
def started(
    data: Path, *, host: str | None = None, port: int = 0, device: str = "auto", shown: bool = False
) -> Iterator[tuple[Stack, subprocess.Popen[bytes]]]:
    """A stack that lives as long as the `with` block, or as this process if that dies.

    Args:
        data: its data folder, made if need be.
        host: address to listen on; loopback unless given.
        port: 0 for any free one.
        device: `auto`, `cpu` or a GPU such as `cuda:0`.
        shown: its log goes to stderr; else only its last lines are told, and only if it does not start.

    Raises:
        ServiceAway: it does not start, with its own words for why.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageProblem(f"The data folder {data} cannot be made: {error.strerror}", "Name another with SPARRING_DATA") from error
    arguments = ["--data", str(data), "--port", str(port), "--device", device, "--until-eof", *(["--host", host] if host else [])]
    with ExitStack() as held:
        log = None if shown else held.enter_context(tempfile.TemporaryFile())
        # A session of its own: Ctrl-C reaches us alone, and we take it down in order.
        process = held.enter_context(
            subprocess.Popen(
                command("service.embedded", *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        )
        held.callback(_take_down, process)
        try:
            stack = _ready(process, log)
        except BaseException:
            # What is not up yet does not look at its stdin.
            process.terminate()
            raise
        yield stack, process


@contextmanager
def service(device: str = "auto") -> Iterator[Client]:
    """A client of the service at SPARRING_URL, else of the stack that runs on this machine, else of one started for this block.

    Raises UsageProblem where one would be started for a device that is not there.
    """
    data = data_folder()
    if os.environ.get("SPARRING_URL"):
        with Client() as client:
            yield client
    elif stack := running(data):
        with Client(stack.url, stack.key) as client:
            yield client
    else:
        check_device(device)
        say(f"starting a stack for this run, data in {data}")
        with started(data, device="cpu" if device == "cpu" else "auto") as (stack, _), Client(stack.url, stack.key) as client:
            yield client

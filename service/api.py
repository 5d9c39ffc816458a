"""`python -P -m sparring.service.api`: serves the API on the address of the settings."""

import argparse
import os
import socket
import sys

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from sparring.service.app import create_app
from sparring.service.auth import UnsafeSettings, check
from sparring.service.listening import listen
from sparring.storage import database, keys, logs
from sparring.storage.settings import Settings
from sparring.storage.tables import DEFAULT_PROJECT

GRACE = 3
"""Seconds that requests under way get at the end."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparring.service.api", description="Serve the HTTP API.")
    parser.add_argument("--new-key", metavar="NAME", help="make an API key, print it and end")
    parser.add_argument("--fd", type=int, help="serve on this inherited listening socket instead of the settings' address")
    return parser.parse_args()


def serve(settings: Settings, fd: int | None = None) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises OSError where the address cannot be had."""
    app = create_app(settings)
    with listen(settings) if fd is None else socket.socket(fileno=fd) as listening:
        # uvicorn's own access log would repeat ours, with the query in it.
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def main() -> int:
    """Migrates the records, then serves. 2 where the settings or the surroundings forbid it."""
    arguments = _arguments()
    os.umask(0o077)
    try:
        settings = Settings()
        check(settings)
        engine = database.connect(settings.database)
        database.migrate(engine)
        if arguments.new_key:
            print(keys.create(engine, project=DEFAULT_PROJECT, name=arguments.new_key).key)
            return 0
        engine.dispose()
        logs.configure()
        serve(settings, arguments.fd)
    except (UnsafeSettings, ValidationError) as error:
        print(f"sparring: {error}", file=sys.stderr)
        return 2
    except SQLAlchemyError as error:
        print(f"sparring: the records cannot be opened: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sparring: cannot serve on {settings.host}:{settings.port} with data in {settings.data}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

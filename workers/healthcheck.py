"""`python -P -m sparring.workers.healthcheck worker|dispatcher`: for supervisors and containers. Imports no torch."""

import argparse
import socket
import sys
import time

from redis import Redis
from sqlalchemy import Engine

from sparring.storage import outbox, queue
from sparring.storage.database import Unreachable, connect
from sparring.storage.settings import Settings

PATIENCE = 5.0
"""Seconds after which a live dispatcher has passed a job on; it looks every second or so."""


def worker_fault(connection: Redis) -> str | None:
    """What is wrong with the workers of this host; None when one of them gave a sign of life lately."""
    host = socket.gethostname()
    if any(worker.host == host for worker in queue.workers(connection)):
        return None
    return f"no worker of {host} gave a sign of life lately: see its log"


def dispatcher_fault(engine: Engine, patience: float = PATIENCE) -> str | None:
    """What is wrong with the dispatcher; None unless a job stays in the outbox for `patience` seconds."""
    waiting = set(outbox.pending(engine))
    if waiting:
        time.sleep(patience)
        waiting &= set(outbox.pending(engine))
    return f"{len(waiting)} jobs wait that nobody passes on to the queue: is Redis up?" if waiting else None


def main() -> int:
    """0 when the part is well; 1, with the reason on stderr, when it is not."""
    parser = argparse.ArgumentParser(prog="sparring.workers.healthcheck", description="Is this part well?")
    parser.add_argument("part", choices=["worker", "dispatcher"])
    part = parser.parse_args().part
    settings = Settings()
    try:
        fault = worker_fault(queue.connect(settings.redis_url)) if part == "worker" else dispatcher_fault(connect(settings.database))
    except queue.Unreachable as error:
        fault = f"Redis cannot be reached: {error}"
    except Unreachable as error:
        fault = f"the records cannot be reached: {error}"
    if fault:
        print(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())

"""The dispatcher: `python -P -m sparring.workers.dispatcher`. It rings the queue for what the records hold, and is never asked.

Several may run at once. When Redis or the records are away it waits and tries again; it ends on SIGTERM or SIGINT only.
"""

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from redis import Redis
from sqlalchemy import Engine

from sparring.contract.fields import Where
from sparring.contract.queue import QUEUES, Device
from sparring.contract.states import Reason
from sparring.storage import attempts, database, gc, logs, outbox, queue
from sparring.storage.artifacts import Folder
from sparring.storage.settings import Settings
from sparring.workers.courier import Courier

TICK = 0.1
"""Seconds between two looks at the outbox and the intake."""
RESEND = 10.0
"""Seconds after which a queued job that the queue has forgotten is sent again."""
COLLECT = 600.0
"""Seconds between two collections of garbage."""
NOTIFY = 0.5
"""Seconds between two looks at what webhooks are to be told."""
LONGEST_WAIT = 15.0
"""Seconds between two tries of a chore that goes on failing, at most."""

_AWAY = (queue.Unreachable, *database.Unreachable)

_log = structlog.get_logger(__name__)

LOST = Reason(
    code="worker_lost",
    message="the worker that ran this job died or lost touch",
    hint="Look at the workers' logs and memory; retry the job when the cause is gone, or ask for fewer rows.",
)


@dataclass
class Chore:
    """Something to be done every so many seconds. A failure is logged, and the next try waits longer each time."""

    name: str
    every: float
    do: Callable[[], object]
    due: float = 0.0
    """Time of the next try, by the clock given to `run`."""
    failures: int = 0
    """Failures since the last success."""

    def run(self, time: float) -> bool:
        """Does it if it is due; says whether it was done."""
        if time < self.due:
            return False
        try:
            self.do()
        except Exception as fault:
            self.failures += 1
            wait = min(self.every * 2 ** min(self.failures, 10), max(LONGEST_WAIT, self.every))
            # A fault of the network or a lock is expected and needs no traceback; anything else is a bug, and still no reason to end.
            _log.warning("chore failed", chore=self.name, wait=wait, fault=str(fault), exc_info=not isinstance(fault, _AWAY))
            self.due = time + wait
            return False
        self.failures = 0
        self.due = time + self.every
        return True


class Dispatcher:
    """The dispatcher's chores, over one engine and one connection."""

    def __init__(self, settings: Settings, engine: Engine, connection: Redis) -> None:
        self.settings = settings
        self.engine = engine
        self.connection = connection
        self.name = f"dispatcher-{socket.gethostname()}-{os.getpid()}"
        self._under_way: set[bytes] | None = None
        self._policy = ""
        self.chores = [
            Chore("dispatch", TICK, self.dispatch),
            Chore("intake", TICK, self.intake),
            Chore("reap", 1.0, self.reap),
            Chore("reconcile", RESEND / 2, self.reconcile),
            Chore("return intake", RESEND, self.return_intake),
            Chore("check policy", 60.0, self.check_policy),
            Chore("collect garbage", COLLECT, self.collect),
            Chore("webhooks", NOTIFY, Courier(settings, engine).tend),
        ]

    def run(self, stopped: Callable[[], bool]) -> None:
        """Does every chore in its time until it is stopped."""
        while not stopped():
            for chore in self.chores:
                if not stopped():
                    chore.run(time.monotonic())
            time.sleep(TICK)

    def dispatch(self) -> None:
        """Tells the queue of every queued job it has not been told of."""
        if bells := outbox.pending(self.engine):
            self._ring(bells)

    def reconcile(self) -> None:
        """Tells it again of those it was told of a while ago and that wait in none of its lists."""
        if bells := outbox.stale(self.engine, RESEND):
            self._ring(bells)

    def reap(self) -> None:
        """Takes jobs from workers whose lease has run out."""
        for job_id, attempt in attempts.expired(self.engine):
            limit = self.settings.max_attempts
            if attempts.release(self.engine, job_id, attempt, reason=LOST, max_attempts=limit, only_expired=True):
                _log.warning("worker lost", job=job_id, attempt=attempt)

    def intake(self) -> None:
        """Accepts what was put into the public queue."""
        for message in queue.take_intake(self.connection, self.name):
            _log.info("intake", message=message)

    def return_intake(self) -> None:
        """Puts back what a dispatcher took from the public queue and did not live to accept.

        Accepting takes milliseconds: what was under way at the last look too, or before this process began, was left behind.
        """
        found = queue.under_way(self.connection)
        left = found if self._under_way is None else found & self._under_way
        if left:
            _log.warning("returned to the intake", messages=len(left))
            queue.return_intake(self.connection, left)
        self._under_way = found - left

    def check_policy(self) -> None:
        """Warns once when Redis is set up so that it may throw messages away."""
        policy = queue.eviction_policy(self.connection)
        if policy != self._policy and policy != "noeviction":
            _log.warning("Redis may throw messages away when its memory is full: set maxmemory-policy to noeviction", policy=policy)
        self._policy = policy

    def collect(self) -> None:
        """Deletes blobs, unfinished uploads, work folders and unpacked datasets that nothing needs any more."""
        collected = gc.collect(self.engine, Folder(self.settings.artifacts), self.settings.work, self.settings.cache)
        if any(collected):
            _log.info("garbage collected", **collected._asdict())

    def _ring(self, bells: list[outbox.Doorbell]) -> None:
        alive = queue.alive(self.connection)
        for job_id, attempt, wanted in bells:
            queue.enqueue(self.connection, job_id, attempt, choose(wanted, alive))
            outbox.sent(self.engine, job_id, attempt)


def choose(wanted: Where, alive: set[str]) -> Device:
    """The device an attempt is sent to: as wanted, or for `auto` a GPU if a live worker has one."""
    if wanted != "auto":
        return wanted
    return "gpu" if QUEUES["gpu"] in alive else "cpu"


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    os.umask(0o077)
    logs.configure()
    # A handler may run anywhere: it only notes the signal, and the loop looks.
    noted: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: noted.add(signum))
    settings = Settings()
    engine = database.connect(settings.database)
    migrating = Chore("migrate", TICK, lambda: database.migrate(engine))
    while not noted and not migrating.run(time.monotonic()):
        time.sleep(TICK)
    _log.info("dispatcher started", database=engine.url.render_as_string(hide_password=True))
    Dispatcher(settings, engine, queue.connect(settings.redis_url)).run(lambda: bool(noted))
    engine.dispose()
    _log.info("dispatcher ended")


if __name__ == "__main__":
    main()

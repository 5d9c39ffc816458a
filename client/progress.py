"""Following a job on stderr: a bar on a terminal, plain lines elsewhere."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sparring.contract.resources import EventInfo, JobInfo
from sparring.errors import ApiError, JobFailed, ServiceAway
from sparring.sdk import Client
from sparring.show import console, say

PAUSE = 10.0
"""Seconds between two looks at what keeps a job waiting."""
_STEP = 10
"""Percent between two plain lines of the same phase."""


class _Lines:
    """Tells each new state, and progress at every tenth, as a line."""

    def __init__(self) -> None:
        self._told: tuple[object, ...] = ()

    def __call__(self, event: EventInfo) -> None:
        done = event.progress
        part = 100 * done.done // done.total if done.total else 0
        now = (event.attempt, event.state, done.phase, part // _STEP)
        if now != self._told:
            self._told = now
            again = f", attempt {event.attempt}" if event.attempt > 1 else ""
            counted = f": {done.phase}{f' {part} %' if done.total else ''}" if done.phase and event.state == "running" else ""
            say(f"{event.state}{again}{counted}")


class _Bar:
    """Moves a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("queued", total=None)

    def __call__(self, event: EventInfo) -> None:
        done = event.progress
        phase = done.phase or event.state if event.state == "running" else event.state
        self._bar.update(self._task, description=phase, completed=done.done, total=done.total or None)


@contextmanager
def _listener() -> Iterator[_Lines | _Bar]:
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        yield _Bar(bar)


@contextmanager
def _explained(client: Client, job_id: str) -> Iterator[None]:
    """While a job goes on waiting in the queue, say what keeps it there."""
    over = threading.Event()

    def look() -> None:
        told = ""
        while not over.wait(PAUSE):
            try:
                job = client.jobs.get(job_id)
            except (ApiError, ServiceAway):
                continue  # whoever follows the events notices, and says so
            if job.state == "queued" and job.note not in ("", told):
                told = job.note
                say(f"still queued: {told}")

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def follow(client: Client, job_id: str) -> JobInfo:
    """Wait for the end of a job and show how far it is; JobFailed when it ends without a report."""
    with _listener() as listen, _explained(client, job_id):
        job = client.jobs.wait(job_id, listen)
    if job.state != "succeeded":
        ended = job.state.replace("_", " ")
        code = job.reason.code if job.reason else job.state
        said = f"{job.reason.message} ({code}{', ' + job.reason.detail if job.reason.detail else ''})" if job.reason else f"it was {ended}"
        hint, detail = (job.reason.hint, job.reason.detail) if job.reason else ("", "")
        raise JobFailed(f"{job_id} {ended}: {said}", hint, job=job_id, code=code, detail=detail)
    return job


@contextmanager
def cancelled_if_interrupted(client: Client, job_id: str) -> Iterator[None]:
    """Cancel the job when the user gives up on it (Ctrl-C, SIGTERM), so that it does not go on unseen."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # A second Ctrl-C must not cut the goodbye short.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            client.jobs.cancel(job_id)
            say(f"cancelled {job_id}")
        except (ApiError, ServiceAway) as error:
            say(f"{job_id} could not be cancelled: {error}")
        finally:
            signal.signal(signal.SIGINT, previous)
        raise

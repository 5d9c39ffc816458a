"""The horse: holds the credentials, owns one attempt of one job, and a runner that does the work.

It claims the attempt, hands the runner its order, extends the lease, passes progress on, obeys cancellation and time limit,
and commits the outcome. Every write is conditional on the attempt: a horse that comes back from the dead changes nothing.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sparring.contract.report import Report
from sparring.contract.runner import MESSAGE, Done, Failed, Order, Told
from sparring.contract.states import Progress, Reason, State
from sparring.storage import attempts, errors
from sparring.storage.artifacts import Blob, Folder
from sparring.storage.attempts import Claim
from sparring.storage.database import connect
from sparring.storage.settings import Settings
from sparring.workers.process import cores
from sparring.workers.spare import Runner, Stable
from sparring.workers.wire import Lines, send

log = structlog.get_logger(__name__)

FILES = frozenset({"report.json", "report.html", "report.md", "rows.csv", "rows.parquet", "examples.npz", "crafted.npz"})
"""What a runner may leave; anything else in its folder is not looked at."""
_MAX_REPORT = 64 << 20
_CHUNK = 1 << 20

_runner: Runner | None = None
_worker = "horse"


class Handback(Exception):
    """The worker is being stopped: the attempt goes back to the queue, without blame."""


def mount(runner: Runner, worker: str) -> None:
    """Take over a spare after the fork."""
    global _runner, _worker
    _runner, _worker = runner, worker


def run(job_id: str, attempt: int) -> None:
    """Serve one attempt to its end. A message that is stale or repeated claims nothing and is dropped."""
    settings = Settings()
    engine = connect(settings.database)
    claim = attempts.claim(engine, job_id, attempt, worker=_worker, lease=settings.lease)
    if claim is None:
        log.info("dropped", job=job_id, attempt=attempt, why="not queued under this attempt any more")
        return
    runner = _runner or Stable("auto", cores()).ready()
    signal.signal(signal.SIGTERM, _handback)
    try:
        Attempt(settings, engine, claim, runner).serve()
    except Handback:
        runner.kill()
        reason = Reason(code="worker_lost", message="The worker was stopped before the job was done.")
        attempts.release(engine, job_id, attempt, reason=reason, max_attempts=settings.max_attempts, blame=False)
    finally:
        runner.kill()


def _handback(signum: int, frame: FrameType | None) -> None:
    raise Handback


class Attempt:
    """One attempt under way."""

    def __init__(self, settings: Settings, engine: Engine, claim: Claim, runner: Runner) -> None:
        """Everything the attempt needs."""
        self.settings, self.engine, self.claim, self.runner = settings, engine, claim, runner
        self.folder = Folder(settings.artifacts)
        self.out = settings.work / claim.job_id / str(claim.attempt)
        self.progress: Progress | None = None
        self.leased = time.monotonic()

    def serve(self) -> None:
        """From order to outcome."""
        try:
            order = self._order()
        except (errors.Corrupt, errors.Missing) as error:
            message = f"A stored upload is damaged or gone: {error}"
            self._finish("failed", Reason(code="artifact_corrupt", message=message, hint="Upload it again and submit the job anew."))
            return
        except OSError as error:
            self._finish("failed", _disk(error))
            return
        send(self.runner.wire, order)
        outcome = self._follow()
        self.runner.kill()
        if isinstance(outcome, Done):
            self._keep(outcome)
        elif outcome is not None:
            self._finish(_state(outcome), outcome)

    def _order(self) -> Order:
        claim, folder = self.claim, self.folder
        for sha in (claim.model.sha256, claim.data.sha256):
            folder.verify(sha)
        self.out.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_over_shards()
        self.settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Order(
            job=claim.job,
            model=claim.model,
            model_path=str(folder.local_path(claim.model.sha256)),
            data=claim.data,
            data_path=str(folder.local_path(claim.data.sha256)),
            cache=str(self.settings.cache),
            out=str(self.out),
        )

    def _take_over_shards(self) -> None:
        """Link what the newest earlier attempt finished. Links, because a runner not yet dead may still write over there."""
        earlier = sorted((int(path.name) for path in self.out.parent.iterdir() if path.name.isdigit()), reverse=True)
        for attempt in (number for number in earlier if number < self.claim.attempt):
            shards = self.out.parent / str(attempt) / "shards"
            if shards.is_dir() and any(shards.iterdir()):
                shutil.copytree(
                    shards, self.out / "shards", copy_function=os.link, ignore=shutil.ignore_patterns("*.tmp"), dirs_exist_ok=True
                )
                return

    def _follow(self) -> Done | Reason | None:
        """Read what the runner tells until it ends; None when the attempt is no longer ours."""
        lines = Lines(self.runner.wire)
        deadline = time.monotonic() + self.claim.job.timeout
        beat = 0.0
        while True:
            now = time.monotonic()
            if now >= deadline:
                return Reason(
                    code="timeout",
                    message=f"The job ran longer than its limit of {self.claim.job.timeout} s.",
                    hint="Raise `timeout`, or ask for fewer rows, steps or threats.",
                )
            if now >= beat:
                beat = now + self.settings.beat
                word = self._beat()
                if word == "fenced":
                    log.warning("fenced", job=self.claim.job_id, attempt=self.claim.attempt)
                    return None
                if word == "cancel":
                    return Reason(code="cancelled_by_user", message="The job was cancelled.")
            for line in lines.read(max(0.01, min(beat, deadline) - time.monotonic())):
                message = MESSAGE.validate_json(line)
                if isinstance(message, Told):
                    self.progress = message.progress
                else:
                    return message.reason if isinstance(message, Failed) else message
            if lines.ended:
                self._lost("The process that computes ended without a word; it was killed, or ran out of memory.")
                return None

    def _beat(self) -> str:
        try:
            word = attempts.beat(self.engine, self.claim.job_id, self.claim.attempt, lease=self.settings.lease, progress=self.progress)
        except DBAPIError as error:
            log.warning("database away", error=str(error))
            return "fenced" if time.monotonic() - self.leased > self.settings.lease else "go"
        self.leased = time.monotonic()
        return word

    def _keep(self, done: Done) -> None:
        try:
            report = self.out / "report.json"
            if report.stat().st_size > _MAX_REPORT:
                raise ValueError(f"report.json is larger than {_MAX_REPORT} bytes")
            Report.model_validate_json(report.read_bytes())
            files = {name: self._store(self.out / name) for name in done.files if name in FILES}
        except (OSError, errors.Full) as error:
            self._finish("failed", _disk(error))
        except ValueError as error:
            message = "The runner's report is not valid, and was not kept."
            self._finish("failed", Reason(code="internal", message=message, detail=str(error)[:400]))
        else:
            total = self.progress.total if self.progress else 0
            self.progress = Progress(phase="done", done=total, total=total)
            self._beat()
            self._finish("succeeded", None, files)

    def _store(self, path: Path) -> Blob:
        return self.folder.put(_chunks(path))

    def _finish(self, state: State, reason: Reason | None, files: dict[str, Blob] | None = None) -> None:
        """Commit the outcome; while the database is away, try for as long as the lease lasts."""
        while True:
            try:
                kept = attempts.finish(self.engine, self.claim.job_id, self.claim.attempt, state=state, reason=reason, files=files or {})
            except DBAPIError:
                if time.monotonic() - self.leased > self.settings.lease:
                    raise
                time.sleep(0.2)
            else:
                break
        log.info("finished" if kept else "fenced", job=self.claim.job_id, attempt=self.claim.attempt, state=state)

    def _lost(self, message: str) -> None:
        reason = Reason(code="worker_lost", message=message, hint="It was tried again as often as allowed; look at the worker's log.")
        attempts.release(self.engine, self.claim.job_id, self.claim.attempt, reason=reason, max_attempts=self.settings.max_attempts)


def _state(reason: Reason) -> State:
    if reason.code == "cancelled_by_user":
        return "cancelled"
    return "timed_out" if reason.code == "timeout" else "failed"


def _disk(error: Exception) -> Reason:
    return Reason(
        code="disk_full" if isinstance(error, errors.Full) or getattr(error, "errno", None) == 28 else "internal",
        message=f"Files of the job could not be written: {error}",
        hint="Free some space in the data folder, then retry the job.",
    )


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk

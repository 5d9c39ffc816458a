"""The horse: holds the credentials, owns one attempt of one job, and a runner that does the work.

It claims the attempt, hands the runner its order, gives signs of life whatever it is busy with, passes progress on, obeys cancellation
and time limit, and commits the outcome. Every write is conditional on the attempt: a horse back from the dead changes nothing.
"""

import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

import structlog
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from sparring.contract.jobs import Certify
from sparring.contract.report import Report
from sparring.contract.retrain import Retrain
from sparring.contract.retrained import RetrainReport
from sparring.contract.runner import MESSAGE, AnyOrder, Ask, Done, Earlier, Failed, Order, Other, TrainingOrder
from sparring.contract.states import Progress, Reason, State
from sparring.reports.pictures import PICTURES
from sparring.storage import artifacts, attempts, errors
from sparring.storage.artifacts import Blob, Folder
from sparring.storage.attempts import Claim
from sparring.storage.database import connect
from sparring.storage.grants import granted
from sparring.storage.settings import Settings
from sparring.storage.uploads import Made
from sparring.workers.errors import unexpected
from sparring.workers.process import cores
from sparring.workers.pulse import Ended, Pulse
from sparring.workers.spare import Runner, Stable
from sparring.workers.versions import made
from sparring.workers.wire import MAX_BODY, MAX_LINE, Lines, send

if TYPE_CHECKING:
    from sparring.workers.endpoint import Post

log = structlog.get_logger(__name__)

REQUIRED = frozenset({"report.json", "report.html", "report.md", "rows.csv", "rows.parquet", "examples.npz"})
"""What every runner that is done has left."""
FILES = REQUIRED | {PICTURES, "crafted.npz"}
"""What a runner may leave; anything else in its folder is not looked at."""
REPORTS = frozenset({"report.json", "report.html", "report.md"})
"""What a runner has left that has trained."""
TRAINED = re.compile(r"report\.(json|html|md)|test\.npz|model(-[a-z_]{1,40}(-[0-9]{1,3})?)?\.(pt2|safetensors|onnx|pt)")
"""What it may leave."""
_MAX_REPORT = 64 << 20

_runner: Runner | None = None
_worker = "horse"


class Handback(Exception):
    """The worker is being stopped: the attempt goes back to the queue, without blame."""


class Lost(Exception):
    """The runner died, or makes no sense any more; the message is for the user."""


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
        hint = "Another worker goes on where it stopped; start one if there is none."
        reason = Reason(code="worker_lost", message="The worker was stopped before the job was done.", hint=hint)
        attempts.release(engine, job_id, attempt, reason=reason, max_attempts=settings.max_attempts, blame=False)
    finally:
        runner.kill()


def _handback(signum: int, frame: FrameType | None) -> None:
    raise Handback


class Attempt:
    """One attempt under way."""

    def __init__(self, settings: Settings, engine: Engine, claim: Claim, runner: Runner, folder: Folder | None = None) -> None:
        """Everything the attempt needs; blobs are kept in the folder of the settings unless another is given."""
        self.settings, self.engine, self.claim, self.runner = settings, engine, claim, runner
        self.folder = folder or Folder(settings.artifacts)
        self.out = settings.work / claim.job_id / str(claim.attempt)
        self.pulse = Pulse(settings, engine, claim)

    def serve(self) -> None:
        """From order to outcome."""
        try:
            files, models = self._work()
        except Ended as ended:
            self.runner.kill()
            if ended.reason is None:
                self._log("fenced")
            else:
                self._finish(_state(ended.reason), ended.reason)
        except Lost as lost:
            self.runner.kill()
            self._release(str(lost))
        else:
            self._finish("succeeded", None, files, models)

    def _work(self) -> tuple[dict[str, Blob], tuple[Made, ...]]:
        try:
            order = self._order()
            with self._post() as post:
                done = self._follow(order, post)
            self.runner.kill()
            return self._keep(done)
        except (errors.Corrupt, errors.Missing) as error:
            message = f"A stored upload is damaged or gone: {error}"
            raise Ended(Reason(code="artifact_corrupt", message=message, hint="Upload it again and submit the job anew.")) from error
        except errors.Full as error:
            hint = "Free some space in the data folder, then retry the job."
            raise Ended(Reason(code="disk_full", message="The disk of the server is full.", hint=hint)) from error
        except OSError as error:
            self._log("trouble with files", error=str(error))
            raise Ended(unexpected(error)) from error

    def _order(self) -> AnyOrder:
        claim, folder = self.claim, self.folder
        self.pulse()
        others = (*claim.others.values(), *claim.earlier)
        for sha in (claim.model.sha256, claim.data.sha256, *(other.sha256 for other in others)):
            folder.verify(sha, self.pulse)
        self.out.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_over_shards()
        self.settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        needed: dict[str, Any] = {
            "model": claim.model,
            "model_path": str(folder.local_path(claim.model.sha256)),
            "data": claim.data,
            "data_path": str(folder.local_path(claim.data.sha256)),
            "others": {name: Other(info=other, path=str(folder.local_path(other.sha256))) for name, other in claim.others.items()},
            "cache": str(self.settings.cache),
            "out": str(self.out),
        }
        if isinstance(claim.job, Retrain):
            return TrainingOrder(job=claim.job, **needed)
        earlier = tuple(Earlier(**each._asdict(), path=str(folder.local_path(each.sha256))) for each in claim.earlier)
        job = claim.job.evaluation() if isinstance(claim.job, Certify) else claim.job
        return Order(job=job, earlier=earlier, **needed)

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

    @contextmanager
    def _post(self) -> Iterator["Post | None"]:
        """Who puts the runner's questions, where the model is an endpoint. Raises Ended where it may not be asked."""
        endpoint = self.claim.model.spec.endpoint
        if endpoint is None:
            yield None
            return
        from sparring.workers.endpoint import Post, refused  # here, because other jobs need no HTTP

        try:
            grant = granted(self.settings.grants, self.claim.project, endpoint)
        except errors.Forbidden as error:
            raise Ended(refused(error).reason) from error
        wire, folder = self.runner.wire, self.out.parent
        budget = None if isinstance(self.claim.job, (Retrain, Certify)) else self.claim.job.budget
        post = Post(endpoint, grant, budget, folder, lambda reply: send(wire, reply), self.pulse.holds)
        try:
            yield post
        finally:
            post.close()

    def _follow(self, order: AnyOrder, post: "Post | None") -> Done:
        """Hand over the order, read what the runner tells and have its questions answered, until it is done."""
        lines = Lines(self.runner.wire, MAX_BODY if post else MAX_LINE)
        try:
            send(self.runner.wire, order)
            while not lines.ended:
                self.pulse()
                if post:
                    post.tend()
                for line in lines.read(self.pulse.rest()):
                    message = MESSAGE.validate_json(line)
                    if isinstance(message, Done):
                        return message
                    if isinstance(message, Failed):
                        raise Ended(message.reason)
                    if isinstance(message, Ask):
                        self._pass_on(message, post)
                    else:
                        self.pulse.progress = message.progress
        except ConnectionError:
            raise Lost("The process that computes had died before it was given the job.") from None
        except ValueError as error:
            self._log("nonsense from the runner", error=str(error))
            raise Lost("The process that computes said something that makes no sense.") from error
        raise Lost("The process that computes ended without a word; it was killed, or ran out of memory.")

    def _pass_on(self, ask: Ask, post: "Post | None") -> None:
        if post is None or len(ask.rows) > post.most:
            raise ValueError("a question that this model cannot be asked")
        post.take(ask)

    def _keep(self, done: Done) -> tuple[dict[str, Blob], tuple[Made, ...]]:
        """Store the files; what a runner left is a stranger's. Also the models among them that the job made."""
        trains = isinstance(self.claim.job, Retrain)
        try:
            if missing := (REPORTS if trains else REQUIRED).difference(done.files):
                raise ValueError(f"not among the files: {', '.join(sorted(missing))}")
            with _regular(self.out / "report.json") as file:
                report = file.read(_MAX_REPORT + 1)
            if len(report) > _MAX_REPORT:
                raise ValueError(f"report.json is larger than {_MAX_REPORT} bytes")
            told = (RetrainReport if trains else Report).model_validate_json(report)
            wanted = {name for name in done.files if TRAINED.fullmatch(name)} if trains else FILES.intersection(done.files)
            files = {name: self._store(self.out / name) for name in sorted(wanted)}
            models = made(told, self.claim, files) if isinstance(told, RetrainReport) else ()
        except ValueError as error:
            detail = str(error.errors(include_url=False, include_input=False)) if isinstance(error, ValidationError) else str(error)
            hint = "This is a fault of the service; please report it with the worker's log. Retrying the job may help."
            reason = Reason(code="internal", message="What the runner left is not valid, and was not kept.", hint=hint, detail=detail[:400])
            raise Ended(reason) from error
        told_last = self.pulse.progress or Progress()
        self.pulse.progress = told_last.model_copy(update={"phase": "done", "done": told_last.total, "rate": 0.0, "eta": None})
        self.pulse.beat()
        return files, models

    def _store(self, path: Path) -> Blob:
        with _regular(path) as file:
            return self.folder.put(artifacts.chunks(file), watch=self.pulse)

    def _finish(self, state: State, reason: Reason | None, files: dict[str, Blob] | None = None, models: Sequence[Made] = ()) -> None:
        """Commit the outcome."""
        job, attempt = self.claim.job_id, self.claim.attempt
        kept = self._insist(lambda: attempts.finish(self.engine, job, attempt, state=state, reason=reason, files=files or {}, made=models))
        self._log("finished" if kept else "fenced", state=state)

    def _release(self, message: str) -> None:
        """The runner is lost: queue the next attempt, or end the job when it has lost too many."""
        hint = "Look at the worker's log and memory; retry the job when the cause is gone, or ask for fewer rows."
        reason = Reason(code="worker_lost", message=message, hint=hint)
        job, attempt, most = self.claim.job_id, self.claim.attempt, self.settings.max_attempts
        self._insist(lambda: attempts.release(self.engine, job, attempt, reason=reason, max_attempts=most))
        self._log("runner lost", why=message)

    def _insist(self, commit: Callable[[], bool]) -> bool:
        """While the database is away, try for as long as the lease lasts."""
        while True:
            try:
                return commit()
            except DBAPIError:
                if not self.pulse.holds():
                    raise
                time.sleep(0.2)

    def _log(self, what: str, **more: str) -> None:
        log.info(what, job=self.claim.job_id, attempt=self.claim.attempt, **more)


def _state(reason: Reason) -> State:
    if reason.code == "cancelled_by_user":
        return "cancelled"
    return "timed_out" if reason.code == "timeout" else "failed"


def _regular(path: Path) -> BinaryIO:
    """A file that a runner left, open for reading. Raises ValueError for a link and whatever else is no file of its own."""
    try:
        # A pipe would be waited for until somebody writes.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise ValueError(f"{path.name} is a link") from error
        raise
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise ValueError(f"{path.name} is not a regular file")
    return file

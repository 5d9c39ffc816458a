"""The queue: Redis and RQ, and the only file that knows them. It is a doorbell; nothing is kept in it that the records do not know.

Who can write to Redis can write any message. So nothing of a message is believed but its data, its origin and its dates, and nothing
is run but two functions, with arguments of the right type; pickles are never opened, callbacks, webhooks and dependencies never looked at.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from rq import Queue, SimpleWorker, get_current_job
from rq.exceptions import DuplicateJobError, NoSuchJobError
from rq.job import Job, JobStatus, parse_job_id
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.utils import import_attribute, str_to_date

from sparring.contract.queue import ENTRY, INTAKE, QUEUES, RUN, Device, run_id
from sparring.contract.resources import WorkerInfo
from sparring.storage import database

Unreachable = RedisError
"""What every function of this file raises when Redis does not answer."""

WORKER_TTL = 20
"""Seconds, for RQ workers: an idle one gives a sign of life every WORKER_TTL - 15."""
MAX_MESSAGE = 4 * 1024**2
"""Bytes of a message once unpacked."""

_ALIVE_MS = 40_000
# RQ renews the key of a live worker to at least 60 s with every sign of life, and one comes every 5 to 20 s.
_RUN_KEPT = 60
_ENTRY_KEPT = 24 * 3600


def connect(url: str, *, blocking: bool = False, hasty: bool = False) -> Redis:
    """A connection that fails within seconds; nothing is sent yet.

    A `blocking` one is for an RQ worker, which waits for an answer; a `hasty` one, for whoever is waited for, fails in half a second.
    """
    if hasty:
        return Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0))
    return Redis.from_url(url, socket_timeout=None if blocking else 5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 1))


def ping(connection: Redis) -> bool:
    """Whether Redis answers."""
    try:
        return bool(connection.ping())
    except RedisError:
        return False


def version(connection: Redis) -> tuple[int, ...]:
    """Of the server, such as (7, 4, 1). Raises Unreachable also when Redis lets nobody in without a password."""
    return tuple(int(part) for part in re.findall(r"\d+", str(connection.info("server")["redis_version"])))


def eviction_policy(connection: Redis) -> str:
    """What Redis does when its memory is full; anything but `noeviction` may throw messages away."""
    return str(connection.info("memory").get("maxmemory_policy", "unknown"))


class SafeJob(Job):
    """A message of RQ that may have been written by anybody."""

    allowed: ClassVar[Mapping[str, Callable[[tuple[Any, ...]], bool]]] = {
        ENTRY: lambda given: len(given) == 1 and isinstance(given[0], dict),
        RUN: lambda given: len(given) == 2 and isinstance(given[0], str) and type(given[1]) is int,
    }
    """The functions that may run, and whether arguments fit them."""
    kept: ClassVar[int] = _RUN_KEPT
    """Seconds for which the message stays in Redis when it is done."""

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> Self:
        """The message with this id. Raises NoSuchJobError also for what can be none."""
        try:
            job = cls(parse_job_id(id), connection=connection, serializer=serializer)
            job.restore(job.connection.hgetall(job.key))
        except (ValueError, ResponseError) as fault:
            raise NoSuchJobError(f"not a message: {id!r}") from fault
        return job

    def restore(self, raw_data: Mapping[Any, Any]) -> None:
        """Takes over what may be believed. Raises NoSuchJobError when there is no data, or too much."""
        fields = {_bytes(name): _bytes(value) for name, value in raw_data.items()}
        self.data = _unpack(fields.get(b"data", b""))
        self.origin = fields.get(b"origin", b"").decode()
        self.created_at = _date(fields.get(b"created_at"))
        self.enqueued_at = _date(fields.get(b"enqueued_at"))
        self.description = self.id
        self.timeout = -1
        self.result_ttl = self.failure_ttl = self.kept
        self._status = JobStatus.QUEUED

    def _execute(self) -> Any:
        name, given = str(self.func_name), tuple(self.args)
        fits = self.allowed.get(name)
        if fits is None:
            raise ValueError(f"refused: only {' and '.join(self.allowed)} may be called here, not {name[:200]!r}")
        if self.instance is not None or self.kwargs or not fits(given):
            raise ValueError(f"refused: these are not the arguments of {name}")
        return import_attribute(name)(*given)


class IntakeJob(SafeJob):
    """A message on the public queue: a job to be accepted."""

    allowed: ClassVar[Mapping[str, Callable[[tuple[Any, ...]], bool]]] = {ENTRY: SafeJob.allowed[ENTRY]}
    kept: ClassVar[int] = _ENTRY_KEPT
    away: Exception | None = None
    """Why the records could not be reached when it was to be accepted."""

    def _execute(self) -> Any:
        try:
            return super()._execute()
        except database.Unreachable as away:
            # No fault of the message: with a retry left RQ puts it back, and its sender never sees it as failed.
            self.retries_left, self.away = 1, away
            raise


class SafeQueue(Queue):
    """A queue that drops what cannot be an id, and keeps no list of what was taken from it: the records know that."""

    @classmethod
    def lpop(cls, queue_keys: Any, timeout: int | None, connection: Redis | None = None) -> Any:
        """Takes the first id of the first queue that has one, waiting up to `timeout` seconds unless None."""
        taken = super().lpop(queue_keys, timeout, connection=connection)
        return taken and (_text(taken[0]), _text(taken[1]))

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
        """Like `lpop`, of one queue."""
        return cls.lpop([queue_key], timeout, connection=connection)


def enqueue(connection: Redis, job_id: str, attempt: int, device: Device) -> None:
    """Rings for an attempt, unless it waits in this queue already."""
    queue, name = _queue(connection, QUEUES[device]), run_id(job_id, attempt)
    for _ in range(2):
        try:
            queue.enqueue_call(
                RUN, (job_id, attempt), timeout=-1, job_id=name, unique=True, result_ttl=_RUN_KEPT, failure_ttl=_RUN_KEPT, description=name
            )
        except DuplicateJobError:
            if present(connection, job_id, attempt, device):
                return
            # A message nobody waits for any more: its worker died, or it waits for another device.
            for other in QUEUES.values():
                _queue(connection, other).remove(name)
            connection.delete(Job.key_for(name))
        else:
            return


def present(connection: Redis, job_id: str, attempt: int, device: Device | None = None) -> bool:
    """Whether an attempt waits in the queue of this device, or of any."""
    names = [QUEUES[device]] if device else list(QUEUES.values())
    name = run_id(job_id, attempt)
    return any(connection.lpos(Queue.redis_queue_namespace_prefix + queue, name) is not None for queue in names)


def current_id() -> str | None:
    """The RQ id of the message that is being worked on in this process, if any."""
    job = get_current_job()
    return job.id if job else None


def workers(connection: Redis) -> list[WorkerInfo]:
    """The workers that gave a sign of life within the last half minute or so, by name."""
    keys = sorted(_text(key) for key in connection.smembers(SimpleWorker.redis_workers_keys))
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hgetall(key)
            pipeline.pttl(key)
        answers = pipeline.execute(raise_on_error=False)
    found = zip(keys, answers[::2], answers[1::2], strict=True)
    live = [(key, fields) for key, fields, left in found if isinstance(fields, dict) and isinstance(left, int) and left > _ALIVE_MS]
    return [_worker(key, {_text(name): _text(value) for name, value in fields.items()}) for key, fields in live]


def alive(connection: Redis) -> set[str]:
    """Names of the queues that a live worker listens on."""
    return {queue for worker in workers(connection) for queue in worker.queues}


def take_intake(connection: Redis, name: str) -> Iterator[str]:
    """Works on the messages that are in the intake now, in this process; gives the id of each when it is done.

    A message stays in a list beside the queue until then, so that it outlives this process (`return_intake`).
    Raises database.Unreachable, with the message back in the queue and the rest left where it is.
    """
    queue = _queue(connection, INTAKE, IntakeJob)
    waiting = queue.count
    if not waiting:
        return
    worker = SimpleWorker([queue], name=name, connection=connection, job_class=IntakeJob, serializer=JSONSerializer, worker_ttl=WORKER_TTL)
    # An alarm must not interrupt what is one short transaction; this one does nothing for a job without a timeout.
    worker.death_penalty_class = TimerDeathPenalty
    for _ in range(waiting):
        raw = connection.lmove(queue.key, queue.intermediate_queue_key)
        if raw is None:
            return
        id = _text(raw)
        away: Exception | None = None
        try:
            job = IntakeJob.fetch(id, connection=connection, serializer=JSONSerializer)
            job.origin = INTAKE
            worker.execute_job(job, queue)
            away = job.away
        except NoSuchJobError:
            id = f"dropped: {id[:80]!r}"
        _forget(connection, queue, _bytes(raw))
        if away is not None:
            raise away
        yield id


def under_way(connection: Redis) -> set[bytes]:
    """Ids of the intake's messages that somebody is working on, or was when he died."""
    queue = _queue(connection, INTAKE, IntakeJob)
    taken = connection.lrange(queue.intermediate_queue_key, 0, -1)
    return {_bytes(id) for id in taken} | {_bytes(entry).partition(b":")[0] for entry in _started(connection, queue)}


def return_intake(connection: Redis, ids: set[bytes]) -> None:
    """Puts messages that were under way back into the intake. Accepting one twice makes one job, by its id."""
    queue = _queue(connection, INTAKE, IntakeJob)
    entries = [entry for entry in _started(connection, queue) if entry.partition(b":")[0] in ids]
    with connection.pipeline() as pipeline:
        for entry in entries:
            pipeline.zrem(queue.started_job_registry.key, entry)
        for id in ids:
            _forget(pipeline, queue, id)
            pipeline.lpush(queue.key, id)
        pipeline.execute()


def _queue(connection: Redis, name: str, job_class: type[SafeJob] = SafeJob) -> Queue:
    return SafeQueue(name, connection=connection, job_class=job_class, serializer=JSONSerializer)


def _started(connection: Redis, queue: Queue) -> list[bytes]:
    """What RQ holds to be under way in a queue: `id:execution`."""
    return [_bytes(entry) for entry in connection.zrange(queue.started_job_registry.key, 0, -1)]


def _forget(connection: Redis, queue: Queue, id: bytes) -> None:
    """Takes an id, which need not be text, from the list of what is being taken in."""
    connection.lrem(queue.intermediate_queue_key, 0, cast(str, id))


def _bytes(answer: object) -> bytes:
    return answer if isinstance(answer, bytes) else str(answer).encode()


def _text(answer: object) -> str:
    return _bytes(answer).decode(errors="replace")


def _unpack(data: bytes) -> bytes:
    """The data of a message, which RQ packs with zlib."""
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(data, MAX_MESSAGE)
    except zlib.error:
        unpacked = data
    if not unpacked or len(unpacked) > MAX_MESSAGE or unpacking.unconsumed_tail:
        raise NoSuchJobError("the message holds no data, or too much")
    return unpacked


def _date(text: bytes | str | None) -> datetime:
    """A date as RQ writes it; the present one in place of anything else."""
    try:
        return str_to_date(text or "")
    except ValueError:
        return datetime.now(UTC)


def _worker(key: str, said: Mapping[str, str]) -> WorkerInfo:
    running, pid = said.get("current_job"), said.get("pid", "")
    return WorkerInfo(
        name=key.removeprefix(SimpleWorker.redis_worker_namespace_prefix),
        queues=tuple(queue for queue in said.get("queues", "").split(",") if queue),
        host=said.get("hostname", ""),
        pid=int(pid) if pid.isdecimal() else 0,
        state=said.get("state", "unknown"),
        job=running.rpartition("-")[0] if running else None,
        last_seen=_date(said.get("last_heartbeat")),
    )

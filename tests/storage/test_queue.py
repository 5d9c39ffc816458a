import json
import pickle
import signal
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, SimpleWorker, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.webhook import Webhook

from sparring.contract.queue import ENTRY, INTAKE, QUEUES, RUN
from sparring.storage import queue
from sparring.workers import door

ID = "job_00000000000000000000"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What reached the two functions of the door."""
    reached: list[tuple[Any, ...]] = []
    monkeypatch.setattr(door, "run", lambda *given: reached.append(("run", *given)))
    monkeypatch.setattr(door, "submit", lambda *given: reached.append(("submit", *given)))
    return reached


@pytest.fixture
def signals() -> Iterator[None]:
    """RQ's workers leave their handlers behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def work(redis: Redis, redis_url: str, signals: None) -> Callable[..., None]:
    """Works on a queue as our workers do, until it is empty."""

    def until_empty(name: str = QUEUES["cpu"]) -> None:
        with queue.connect(redis_url, blocking=True) as connection:
            options = {"connection": connection, "job_class": queue.SafeJob, "queue_class": queue.SafeQueue, "serializer": JSONSerializer}
            worker = SimpleWorker([name], worker_ttl=queue.WORKER_TTL, **options)
            worker.death_penalty_class = TimerDeathPenalty
            worker.work(burst=True, logging_level="WARNING")

    return until_empty


@pytest.fixture
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A web server that notes who calls."""
    callers: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                connection.close()
                callers.append(caller)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", callers
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def waiting(redis: Redis, device: str = "cpu") -> list[str]:
    return [id.decode() for id in redis.lrange(f"rq:queue:{QUEUES[device]}", 0, -1)]


def client(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


def test_a_bell_reaches_the_door_once(redis: Redis, work: Callable[..., None], calls: list[Any]) -> None:
    for _ in range(3):
        queue.enqueue(redis, ID, 2, "cpu")
    assert waiting(redis) == [f"{ID}-2"]
    assert queue.present(redis, ID, 2)
    assert queue.present(redis, ID, 2, "cpu")
    assert not queue.present(redis, ID, 2, "gpu")
    assert not queue.present(redis, ID, 1)
    work()
    assert calls == [("run", ID, 2)]
    assert not queue.present(redis, ID, 2)


def test_a_bell_nobody_waits_for_any_more_is_rung_again(redis: Redis, work: Callable[..., None], calls: list[Any]) -> None:
    queue.enqueue(redis, ID, 1, "cpu")
    work()
    queue.enqueue(redis, ID, 1, "cpu")
    redis.delete(f"rq:queue:{QUEUES['cpu']}")
    queue.enqueue(redis, ID, 1, "cpu")
    work()
    assert calls == [("run", ID, 1)] * 2


def test_a_bell_for_another_device_is_rung_there(redis: Redis, work: Callable[..., None], calls: list[Any]) -> None:
    queue.enqueue(redis, ID, 1, "gpu")
    queue.enqueue(redis, ID, 1, "cpu")
    work()
    assert calls == [("run", ID, 1)]
    work(QUEUES["gpu"])
    assert calls == [("run", ID, 1)]


def test_messages_do_not_pile_up_in_redis(redis: Redis, work: Callable[..., None], calls: list[Any]) -> None:
    queue.enqueue(redis, ID, 1, "cpu")
    queue.enqueue(redis, "job_1111111111111111111", 1, "cpu")
    work()
    assert len(calls) == 2
    lasting = [key.decode() for key in redis.scan_iter() if redis.ttl(key) < 0]
    # Names of queues and sets with one small entry for each message, which RQ prunes.
    assert not [key for key in lasting if key.startswith(("rq:job:", "rq:worker:", "rq:execution"))], lasting


def hostile(redis: Redis, name: str, canary: Path, url: str) -> int:
    """Puts everything into a queue that must not be run; returns how many messages RQ's own client let through."""
    safe, touch = client(redis, name), f"touch {canary}"
    for function, arguments in [
        ("os.system", [touch]),
        ("subprocess.check_call", [["touch", str(canary)]]),
        ("builtins.open", [str(canary), "w"]),
        ("sparring.workers.door.accept", []),
        ("sparring.workers.door", []),
        (f"{ENTRY}.__globals__", []),
        ("", []),
        (ENTRY, []),
        (ENTRY, ["text"]),
        (ENTRY, [{}, {}]),
        (RUN, [ID]),
        (RUN, [ID, True]),
        (RUN, [1, 1]),
    ]:
        safe.enqueue_call(function, arguments)
    safe.enqueue_call(ENTRY, [{}], kwargs={"job": {}})
    Queue(name, connection=redis).enqueue("os.system", touch)
    raw = {
        "pickle": pickle.dumps((ENTRY, None, [{}], {})),
        "garbage": b"\xff\xfe\x00",
        "empty": b"",
        "number": b"1",
        "short": b'["os.system"]',
        "instance": json.dumps([ENTRY, "x", [{}], {}]).encode(),
        "unhashable": json.dumps([[ENTRY], None, [{}], {}]).encode(),
        "deep": b"[" * 100_000,
        "bomb": zlib.compress(json.dumps([ENTRY, None, [{"x": "y" * (queue.MAX_MESSAGE + 1)}], {}]).encode()),
        "numbers": json.dumps([RUN, None, [ID, 1.5], {}]).encode(),
    }
    for id, data in raw.items():
        redis.hset(f"rq:job:{id}", mapping={"data": data, "origin": name})
    fields = {"data": json.dumps(["os.system", None, [touch], {}]), "origin": "\udcff".encode(errors="surrogateescape"), "timeout": "soon"}
    fields |= {
        "created_at": "yesterday",
        "meta": pickle.dumps({}),
        "result_ttl": "x",
        "status": "dancing",
        "retries_left": "99",
        "webhooks": "{",
    }
    fields |= {"enqueued_at": b"\xff", "success_callback_timeout": "never", "dependency_ids": "[[]]", "group_id": "g", "repeats_left": "9"}
    redis.hset("rq:job:fields", mapping=fields)
    redis.set("rq:job:string", "not a hash")
    redis.hset("rq:job:bare", mapping={"x": "y"})
    for id in (*raw, "fields", "string", "bare", "ghost", "bad id!", "a:b:c", "", b"\xff\xfe", "x" * 100_000):
        redis.rpush(f"rq:queue:{name}", id)
    calling = {"on_success": Callback("os.system"), "on_failure": Callback("os.system"), "on_stopped": Callback("os.system")}
    hooks = [Webhook(url, status) for status in ("finished", "failed")]
    safe.enqueue_call(ENTRY, [[touch]], webhooks=hooks, **calling)
    return redis.llen(f"rq:queue:{name}")


def test_nothing_else_is_run_from_a_worker_s_queue(
    redis: Redis, work: Callable[..., None], calls: list[Any], tmp_path: Path, listener: tuple[str, list[Any]]
) -> None:
    canary = tmp_path / "canary"
    url, callers = listener
    assert hostile(redis, QUEUES["cpu"], canary, url) > 30
    queue.enqueue(redis, ID, 1, "cpu")
    work()
    assert waiting(redis) == []
    assert calls == [("run", ID, 1)]
    assert not canary.exists()
    assert callers == []


def test_nothing_else_is_run_from_the_public_queue(redis: Redis, calls: list[Any], tmp_path: Path, listener: tuple[str, list[Any]]) -> None:
    canary = tmp_path / "canary"
    url, callers = listener
    hooked = {"on_success": Callback("os.system"), "webhooks": [Webhook(url, "finished")]}
    client(redis, INTAKE).enqueue_call(ENTRY, [{"first": 1}], job_id="first", **hooked)
    number = hostile(redis, INTAKE, canary, url)
    client(redis, INTAKE).enqueue_call(RUN, [ID, 1])
    client(redis, INTAKE).enqueue_call(ENTRY, [{"good": 1}])
    assert len(list(queue.take_intake(redis, "test"))) == number + 2
    assert calls == [("submit", {"first": 1}), ("submit", {"good": 1})]
    assert not canary.exists()
    assert callers == []
    assert redis.llen(f"rq:queue:{INTAKE}") == 0
    assert queue.under_way(redis) == set()
    assert list(queue.take_intake(redis, "test")) == []


def test_a_client_learns_how_its_message_fared(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "submit", lambda job: f"job of {job['name']}")
    intake = client(redis, INTAKE)
    good, bad = intake.enqueue(ENTRY, {"name": "ada"}), intake.enqueue("os.system", "true")
    assert list(queue.take_intake(redis, "test")) == [good.id, bad.id]
    assert (good.get_status(), good.return_value()) == ("finished", "job of ada")
    assert bad.get_status() == "failed"
    assert "only sparring.workers.door.submit may be called here" in bad.latest_result().exc_string


def test_what_arrives_while_the_intake_is_worked_on_waits_for_the_next_time(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = client(redis, INTAKE)
    monkeypatch.setattr(door, "submit", lambda job: intake.enqueue(ENTRY, job).id)
    first = intake.enqueue(ENTRY, {})
    assert list(queue.take_intake(redis, "test")) == [first.id]
    assert intake.count == 1


def test_what_a_dead_process_had_taken_is_returned_in_front(redis: Redis, calls: list[Any]) -> None:
    intake = client(redis, INTAKE)
    taken, started, later = (intake.enqueue(ENTRY, {"n": n}) for n in range(3))
    redis.lmove(intake.key, intake.intermediate_queue_key)
    redis.lpop(intake.key)
    worker = SimpleWorker([intake], connection=redis)
    worker.prepare_execution(Job.fetch(started.id, connection=redis, serializer=JSONSerializer))
    redis.rpush(intake.intermediate_queue_key, b"\xff")
    left = queue.under_way(redis)
    assert left == {taken.id.encode(), started.id.encode(), b"\xff"}
    queue.return_intake(redis, left)
    assert queue.under_way(redis) == set()
    list(queue.take_intake(redis, "test"))
    assert {given["n"] for _, given in calls} == {0, 1, 2}
    assert calls[-1] == ("submit", {"n": 2})
    assert later.get_status() == "finished"


def test_workers_are_seen_while_they_live(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue.workers(redis) == []
    worker = Worker([QUEUES["gpu"], QUEUES["cpu"]], name="w1", connection=redis, worker_ttl=queue.WORKER_TTL, serializer=JSONSerializer)
    worker.register_birth()
    worker.set_state("busy")
    worker.set_current_job_id(f"{ID}-3")
    (seen,) = queue.workers(redis)
    assert (seen.name, seen.queues, seen.state, seen.job) == ("w1", (QUEUES["gpu"], QUEUES["cpu"]), "busy", ID)
    assert seen.pid > 0
    assert queue.alive(redis) == set(QUEUES.values())
    redis.expire(worker.key, 30)
    assert queue.alive(redis) == set()
    worker.heartbeat()
    assert queue.alive(redis) == set(QUEUES.values())
    worker.register_death()
    assert queue.workers(redis) == []


def test_nonsense_among_the_workers_is_passed_over(redis: Redis) -> None:
    redis.sadd("rq:workers", "rq:worker:ghost", "rq:worker:text", b"\xff", "rq:worker:odd")
    redis.set("rq:worker:text", "x", ex=100)
    redis.hset("rq:worker:odd", mapping={"pid": "many", "queues": b"\xff,", "last_heartbeat": "never"})
    redis.expire("rq:worker:odd", 100)
    (odd,) = queue.workers(redis)
    assert (odd.name, odd.pid, odd.queues, odd.job) == ("odd", 0, ("�",), None)


def test_the_version_of_redis(redis: Redis) -> None:
    assert queue.version(redis) >= (6, 2)


def test_what_redis_does_when_it_is_full(redis: Redis) -> None:
    assert queue.eviction_policy(redis) == "noeviction"


def test_a_redis_that_is_away_is_noticed_at_once(tmp_path: Path) -> None:
    with queue.connect(f"unix://{tmp_path / 'nobody.sock'}") as connection:
        assert not queue.ping(connection)
        with pytest.raises(queue.Unreachable):
            queue.enqueue(connection, ID, 1, "cpu")
        with pytest.raises(queue.Unreachable):
            queue.workers(connection)


def test_a_redis_that_came_back_is_used_again(own_redis: Any) -> None:
    with queue.connect(own_redis.url) as connection:
        assert queue.ping(connection)
        own_redis.kill()
        assert not queue.ping(connection)
        own_redis.start()
        queue.enqueue(connection, ID, 1, "cpu")
        assert queue.present(connection, ID, 1)


def test_no_message_is_being_worked_on_here() -> None:
    assert queue.current_id() is None

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from sqlalchemy import Engine, text

from sparring.contract.jobs import JOB, Evaluate
from sparring.contract.queue import ENTRY, INTAKE, QUEUES
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.states import Progress
from sparring.storage import attempts, jobs, outbox, queue, uploads
from sparring.storage.artifacts import Blob, Folder
from sparring.storage.settings import Settings
from sparring.workers import door
from sparring.workers.dispatcher import LONGEST_WAIT, RESEND, Chore, Dispatcher, choose


@pytest.fixture
def engine(sqlite_engine: Engine, settings: Settings) -> Engine:
    """The records that the settings name."""
    return sqlite_engine


@pytest.fixture
def body(engine: Engine) -> dict[str, Any]:
    model = uploads.add_model(engine, project="default", name="m", blob=Blob("a" * 64, 1), format="pt2", spec=ModelSpec())
    data = uploads.add_dataset(engine, project="default", name="d", blob=Blob("b" * 64, 1), format="npz", spec=DataSpec())
    return {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": "8/255"}]}


@pytest.fixture
def job(body: dict[str, Any]) -> Evaluate:
    return JOB.validate_python(body)


@pytest.fixture
def dispatcher(settings: Settings, engine: Engine, redis: Redis) -> Dispatcher:
    return Dispatcher(settings, engine, redis)


@pytest.fixture
def intake(redis: Redis) -> Queue:
    """The public queue as a stranger with nothing but RQ sees it."""
    return Queue("sparring:intake", connection=redis, serializer=JSONSerializer)


def waiting(redis: Redis, device: str = "cpu") -> list[str]:
    return [id.decode() for id in redis.lrange(f"rq:queue:{QUEUES[device]}", 0, -1)]


def sleep(engine: Engine, seconds: float) -> None:
    """As if so many seconds had gone by since anything was sent or leased."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE outbox SET sent = sent - {seconds}"))
        connection.execute(text(f"UPDATE jobs SET lease = lease - {seconds}"))


@contextmanager
def process(**environment: str) -> Iterator[subprocess.Popen[str]]:
    """A dispatcher as it is run, in the environment of the test."""
    command = [sys.executable, "-W", "error", "-P", "-m", "sparring.workers.dispatcher"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}) as running:
        try:
            yield running
        finally:
            running.kill()


def test_a_queued_job_is_sent_once(dispatcher: Dispatcher, engine: Engine, redis: Redis, job: Evaluate) -> None:
    ids = [jobs.accept(engine, job)[0].id for _ in range(3)]
    for _ in range(2):
        dispatcher.dispatch()
        dispatcher.reconcile()
    assert waiting(redis) == [f"{id}-1" for id in ids]
    assert outbox.pending(engine) == []


def test_two_dispatchers_send_each_job_once(settings: Settings, engine: Engine, redis_url: str, redis: Redis, job: Evaluate) -> None:
    ids = [jobs.accept(engine, job)[0].id for _ in range(20)]
    gate = threading.Barrier(2)

    def dispatch() -> None:
        with queue.connect(redis_url) as connection:
            gate.wait()
            Dispatcher(settings, engine, connection).dispatch()

    threads = [threading.Thread(target=dispatch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waiting(redis)) == sorted(f"{id}-1" for id in ids)


def test_what_redis_forgot_is_sent_again(dispatcher: Dispatcher, engine: Engine, redis: Redis, job: Evaluate) -> None:
    ids = [jobs.accept(engine, job)[0].id for _ in range(2)]
    dispatcher.dispatch()
    redis.flushall()
    dispatcher.reconcile()
    assert waiting(redis) == []
    sleep(engine, RESEND + 1)
    dispatcher.reconcile()
    assert sorted(waiting(redis)) == sorted(f"{id}-1" for id in ids)
    dispatcher.reconcile()
    assert len(waiting(redis)) == 2


def test_what_a_worker_took_and_did_not_claim_is_sent_again(dispatcher: Dispatcher, engine: Engine, redis: Redis, job: Evaluate) -> None:
    info, _ = jobs.accept(engine, job)
    dispatcher.dispatch()
    redis.lpop(f"rq:queue:{QUEUES['cpu']}")
    sleep(engine, RESEND + 1)
    dispatcher.reconcile()
    assert waiting(redis) == [f"{info.id}-1"]


def test_a_job_goes_from_a_dead_worker_to_the_queue(dispatcher: Dispatcher, engine: Engine, redis: Redis, job: Evaluate) -> None:
    info, _ = jobs.accept(engine, job)
    attempts.claim(engine, info.id, 1, worker="w", lease=15)
    dispatcher.reap()
    assert jobs.get(engine, "default", info.id).state == "running"
    sleep(engine, 16)
    dispatcher.reap()
    dispatcher.dispatch()
    assert waiting(redis) == [f"{info.id}-2"]
    assert attempts.beat(engine, info.id, 1, lease=15, progress=Progress()) == "fenced"


def test_a_worker_that_beats_just_in_time_keeps_its_job(
    dispatcher: Dispatcher, engine: Engine, job: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, _ = jobs.accept(engine, job)
    attempts.claim(engine, info.id, 1, worker="w", lease=15)
    sleep(engine, 16)
    seen = attempts.expired(engine)
    attempts.beat(engine, info.id, 1, lease=15)
    monkeypatch.setattr(attempts, "expired", lambda engine: seen)
    dispatcher.reap()
    assert jobs.get(engine, "default", info.id).attempt == 1


def test_a_job_that_kills_its_workers_fails_in_words(dispatcher: Dispatcher, engine: Engine, job: Evaluate) -> None:
    info, _ = jobs.accept(engine, job)
    for attempt in range(1, dispatcher.settings.max_attempts + 1):
        assert attempts.claim(engine, info.id, attempt, worker="w", lease=15)
        sleep(engine, 16)
        dispatcher.reap()
    info = jobs.get(engine, "default", info.id)
    assert info.state == "failed"
    assert info.reason is not None
    assert info.reason.code == "worker_lost"
    assert info.reason.hint


@pytest.mark.parametrize(
    ("wanted", "alive", "device"),
    [("auto", set(), "cpu"), ("auto", set(QUEUES.values()), "gpu"), ("cpu", set(QUEUES.values()), "cpu"), ("gpu", set(), "gpu")],
)
def test_the_device(wanted: str, alive: set[str], device: str) -> None:
    assert choose(wanted, alive) == device


def test_a_job_for_any_device_follows_the_workers(dispatcher: Dispatcher, engine: Engine, redis: Redis, job: Evaluate) -> None:
    worker = Worker([QUEUES["gpu"]], name="w", connection=redis, serializer=JSONSerializer)
    worker.register_birth()
    info, _ = jobs.accept(engine, job)
    dispatcher.dispatch()
    assert (waiting(redis, "gpu"), waiting(redis)) == ([f"{info.id}-1"], [])
    worker.register_death()
    sleep(engine, RESEND + 1)
    dispatcher.reconcile()
    assert (waiting(redis, "gpu"), waiting(redis)) == ([], [f"{info.id}-1"])


def test_a_stranger_s_job_is_taken_on(dispatcher: Dispatcher, engine: Engine, redis: Redis, intake: Queue, body: dict[str, Any]) -> None:
    message = intake.enqueue("sparring.workers.door.submit", body)
    dispatcher.intake()
    (info,) = jobs.list_jobs(engine, "default", limit=10, key=message.id).items
    assert (message.get_status(), message.return_value()) == ("finished", info.id)
    dispatcher.dispatch()
    assert waiting(redis) == [f"{info.id}-1"]


def test_the_same_message_twice_is_one_job(dispatcher: Dispatcher, engine: Engine, intake: Queue, body: dict[str, Any]) -> None:
    for _ in range(2):
        intake.enqueue(ENTRY, body, job_id="mine")
    dispatcher.intake()
    (info,) = jobs.list_jobs(engine, "default", limit=10).items
    assert info.key == "mine"


def test_a_stranger_s_nonsense_stops_nothing(
    dispatcher: Dispatcher, engine: Engine, redis: Redis, intake: Queue, body: dict[str, Any]
) -> None:
    bad = intake.enqueue(ENTRY, {**body, "threats": []})
    unknown = intake.enqueue(ENTRY, {**body, "model": "0" * 64})
    redis.rpush(f"rq:queue:{INTAKE}", "ghost", b"\xff")
    good = intake.enqueue(ENTRY, body)
    dispatcher.intake()
    assert [message.get_status() for message in (bad, unknown, good)] == ["failed", "failed", "finished"]
    assert "this is not a valid job: evaluate.threats" in bad.latest_result().exc_string
    assert "upload it first" in unknown.latest_result().exc_string
    assert len(jobs.list_jobs(engine, "default", limit=10).items) == 1


def test_a_message_waits_while_the_records_are_away(
    dispatcher: Dispatcher, engine: Engine, intake: Queue, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    messages = [intake.enqueue(ENTRY, body) for _ in range(2)]
    tried = 0
    chore = next(chore for chore in dispatcher.chores if chore.name == "intake")

    def submit(job: dict[str, Any]) -> str:
        nonlocal tried
        tried += 1
        return accept(job)

    accept = door.submit
    monkeypatch.setattr(door, "submit", submit)
    with monkeypatch.context() as away:
        away.setenv("SPARRING_DATABASE_URL", f"postgresql:///x?host={tmp_path}")
        chore.run(0.0)
    assert (tried, chore.failures) == (1, 1)
    assert {message.get_status() for message in messages} == {"queued"}
    assert sorted(intake.job_ids) == sorted(message.id for message in messages)
    assert queue.under_way(dispatcher.connection) == set()
    chore.run(chore.due)
    assert {message.get_status() for message in messages} == {"finished"}
    assert {info.key for info in jobs.list_jobs(engine, "default", limit=10).items} == {message.id for message in messages}


def test_what_a_dispatcher_had_taken_when_it_died_is_taken_on(
    settings: Settings, dispatcher: Dispatcher, engine: Engine, redis: Redis, intake: Queue, body: dict[str, Any]
) -> None:
    dispatcher.return_intake()
    taken = intake.enqueue(ENTRY, body)
    redis.lmove(intake.key, intake.intermediate_queue_key)
    dispatcher.return_intake()
    assert intake.count == 0
    dispatcher.return_intake()
    assert intake.job_ids == [taken.id]
    redis.lmove(intake.key, intake.intermediate_queue_key)
    next_one = Dispatcher(settings, engine, redis)
    next_one.return_intake()
    next_one.intake()
    assert taken.get_status() == "finished"


def test_garbage_is_collected(dispatcher: Dispatcher, settings: Settings, engine: Engine, job: Evaluate) -> None:
    orphan = Folder(settings.artifacts).put([b"orphan"])
    path = Folder(settings.artifacts).local_path(orphan.sha256)
    os.utime(path, (1, 1))
    info, _ = jobs.accept(engine, job)
    for name in (info.id, "job_00000000000000000000"):
        (settings.work / name).mkdir(parents=True)
    dispatcher.collect()
    assert not path.exists()
    assert [folder.name for folder in settings.work.iterdir()] == [info.id]


def test_a_chore_that_fails_is_tried_again_later_and_later() -> None:
    faults: list[Exception] = [ValueError("bug"), *(queue.Unreachable("away") for _ in range(20))]
    done = []

    def do() -> None:
        if faults:
            raise faults.pop(0)
        done.append(1)

    chore = Chore("test", 0.5, do)
    waits, time = [], 0.0
    while not done:
        chore.run(time)
        assert not chore.run(chore.due - 0.01)
        waits.append(chore.due - time)
        time = chore.due
    assert waits[:4] == pytest.approx([1, 2, 4, 8])
    assert max(waits) == pytest.approx(LONGEST_WAIT)
    assert waits[-1] == pytest.approx(0.5)
    assert chore.failures == 0


def test_what_needs_no_redis_goes_on_without_it(settings: Settings, engine: Engine, job: Evaluate) -> None:
    info, _ = jobs.accept(engine, job)
    attempts.claim(engine, info.id, 1, worker="w", lease=15)
    sleep(engine, 16)
    jobs.accept(engine, job)
    with queue.connect(settings.redis_url) as nobody:
        alone = Dispatcher(settings, engine, nobody)
        ended = iter([False] * (len(alone.chores) + 1) + [True] * 2)
        alone.run(lambda: next(ended))
    assert jobs.get(engine, "default", info.id).attempt == 2
    assert {chore.name for chore in alone.chores if chore.failures} == {"dispatch", "intake", "return intake", "check policy"}


def test_an_unsafe_redis_is_warned_of_once(dispatcher: Dispatcher, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        dispatcher.check_policy()
        assert "noeviction" in capsys.readouterr().out
        dispatcher.check_policy()
        assert capsys.readouterr().out == ""
    finally:
        redis.config_set("maxmemory-policy", "noeviction")


def test_a_dispatcher_survives_redis_and_ends_when_told(
    engine: Engine, own_redis: Any, job: Evaluate, body: dict[str, Any], eventually: Callable[..., object]
) -> None:
    with queue.connect(own_redis.url) as redis, process(SPARRING_REDIS_URL=own_redis.url) as running:
        first, _ = jobs.accept(engine, job)
        eventually(lambda: queue.present(redis, first.id, 1))
        own_redis.kill()
        second, _ = jobs.accept(engine, job)
        own_redis.start()
        message = Queue(INTAKE, connection=redis, serializer=JSONSerializer).enqueue(ENTRY, body)
        eventually(lambda: queue.present(redis, second.id, 1))
        eventually(lambda: message.get_status() == "finished")
        third = message.return_value()
        eventually(lambda: queue.present(redis, third, 1))
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=30)[1]
        assert running.returncode == 0, said
    told = [json.loads(line) for line in said.splitlines()]
    assert told[-1]["event"] == "dispatcher ended"
    assert not [line for line in told if "exception" in line]


def test_a_killed_dispatcher_loses_nothing(
    engine: Engine, redis: Redis, redis_url: str, intake: Queue, body: dict[str, Any], eventually: Callable[..., object]
) -> None:
    """It is killed again and again in the midst of its work; each message becomes one job, and each job is sent."""
    messages = [intake.enqueue(ENTRY, body, job_id=f"m{number}") for number in range(60)]
    for goal in (1, 20, 40):
        with process(SPARRING_REDIS_URL=redis_url) as running:
            eventually(lambda goal=goal: sum(message.is_finished for message in messages) >= goal)
            running.kill()
    with process(SPARRING_REDIS_URL=redis_url):
        eventually(lambda: all(message.is_finished for message in messages) and not outbox.pending(engine))
    accepted = jobs.list_jobs(engine, "default", limit=1000).items
    assert sorted(info.key or "" for info in accepted) == sorted(message.id for message in messages)
    assert {message.return_value() for message in messages} == {info.id for info in accepted}
    assert sorted(waiting(redis)) == sorted(f"{info.id}-1" for info in accepted)

"""Whatever dies during a job, the job ends with exactly one report, and its numbers are those of an undisturbed run."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from flow.conftest import Ready
from flow.stack import ATTEMPTS, LEASE, Stack, eventually, tree
from redis import Redis

from sparring.contract.states import FINAL

LONG = {"threats": [{"norm": "linf", "eps": 0.03}], "attacks": [{"kind": "pgd", "steps": 30, "restarts": 2}], "device": "cpu"}
SHORT = LONG | {"attacks": [{"kind": "pgd", "steps": 5}], "rows": 256}
ENDLESS = LONG | {"attacks": [{"kind": "pgd", "steps": 100_000}]}


@pytest.fixture(scope="module")
def undisturbed(ready: Ready) -> bytes:
    job = ready.stack.submit(model=ready.model, data=ready.data, **LONG)
    assert ready.stack.ended(job).state == "succeeded"
    return ready.stack.rows(job)


def proper_end(stack: Stack, job: str, rows: bytes) -> int:
    """The attempt that reported."""
    info = stack.ended(job)
    assert info.state == "succeeded", info.reason
    assert len([file for file in info.artifacts if file.name == "report.json"]) == 1
    events = stack.events(job)
    assert [event.state for event in events if event.state in FINAL] == ["succeeded"]
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts), "an attempt wrote after a later one had begun"
    assert attempts[-1] == info.attempt
    assert stack.rows(job) == rows
    return info.attempt


def kill(find: Callable[[Stack], int]) -> Callable[[Stack], None]:
    return lambda stack: os.kill(find(stack), signal.SIGKILL)


def forget_everything(stack: Stack) -> None:
    with Redis.from_url(stack.environment()["SPARRING_REDIS_URL"]) as connection:
        connection.flushall()


FAULTS: dict[str, Callable[[Stack], None]] = {
    "runner": kill(Stack.runner),
    "horse": kill(Stack.horse),
    "worker": kill(Stack.worker),
    "redis": kill(Stack.redis),
    "api": kill(lambda stack: stack.processes("sparring.service.api")[0]),
    "dispatcher": kill(lambda stack: stack.processes("sparring.workers.dispatcher")[0]),
    "flushall": forget_everything,
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_job_survives_the_death_of(fault: str, ready: Ready, undisturbed: bytes) -> None:
    job = ready.stack.submit(model=ready.model, data=ready.data, **LONG)
    ready.stack.under_way(job)
    FAULTS[fault](ready.stack)
    attempt = proper_end(ready.stack, job, undisturbed)
    if fault in ("runner", "horse", "worker"):
        assert attempt == 2
        resumed = ready.stack.client.jobs.report(job).provenance.resumed
        assert 0 < resumed < ready.stack.shards(job, 2), "finished shards were not taken over, or none was left to do"


@pytest.fixture(scope="module")
def short(ready: Ready) -> bytes:
    job = ready.stack.submit(model=ready.model, data=ready.data, **SHORT)
    assert ready.stack.ended(job).state == "succeeded"
    return ready.stack.rows(job)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_horse_killed_while_it_stores_and_commits_leaves_one_report(seed: int, ready: Ready, short: bytes) -> None:
    """The runner has written its last file; the horse is killed somewhere between taking it in and having committed."""
    stack = ready.stack
    job = stack.submit(model=ready.model, data=ready.data, **SHORT)
    horse, last = stack.horse(), stack.data / "work" / job / "1" / "report.md"
    eventually(last.exists, what="the last file", pause=0.001)
    time.sleep(random.Random(seed).random() * 0.1)
    with contextlib.suppress(ProcessLookupError):  # it may have committed and gone
        os.kill(horse, signal.SIGKILL)
    proper_end(stack, job, short)


@pytest.mark.slow
def test_a_queued_job_survives_flushall(ready: Ready, undisturbed: bytes) -> None:
    first = ready.stack.submit(model=ready.model, data=ready.data, **LONG)
    second = ready.stack.submit(model=ready.model, data=ready.data, **LONG)
    ready.stack.under_way(first)
    forget_everything(ready.stack)
    for job in (first, second):
        proper_end(ready.stack, job, undisturbed)


@pytest.mark.slow
def test_a_worker_back_from_the_dead_changes_nothing(ready: Ready, undisturbed: bytes) -> None:
    """Its horse sleeps longer than the lease; a second worker takes the job over; then it wakes up."""
    stack = ready.stack
    job = stack.submit(model=ready.model, data=ready.data, **LONG)
    stack.under_way(job)
    sleepers = [stack.horse(), stack.worker()]
    for pid in sleepers:
        os.kill(pid, signal.SIGSTOP)
    command = [sys.executable, "-P", "-m", "sparring.workers.worker", "--device", "cpu", "--name", "second"]
    with subprocess.Popen(command, env=stack.environment()) as second:
        try:
            eventually(lambda: stack.info(job).attempt == 2, LEASE + 20, "the lease to run out")
            for pid in reversed(sleepers):
                os.kill(pid, signal.SIGCONT)
            assert proper_end(stack, job, undisturbed) == 2
        finally:
            second.send_signal(signal.SIGTERM)
    time.sleep(LEASE)  # room for the sleeper to do harm
    assert proper_end(stack, job, undisturbed) == 2


@pytest.mark.slow
def test_a_worker_told_to_stop_hands_its_job_back_without_blame(ready: Ready, undisturbed: bytes) -> None:
    job = ready.stack.submit(model=ready.model, data=ready.data, **LONG)
    ready.stack.under_way(job)
    os.kill(ready.stack.worker(), signal.SIGTERM)
    assert proper_end(ready.stack, job, undisturbed) == 2


def test_cancel_kills_the_runner(ready: Ready) -> None:
    job = ready.stack.submit(model=ready.model, data=ready.data, **ENDLESS)
    eventually(lambda: ready.stack.info(job).progress.phase == "attack", what="the attack")
    runner = ready.stack.runner()
    ready.stack.client.jobs.cancel(job)
    info = ready.stack.ended(job, 10)
    assert (info.state, info.reason.code if info.reason else "") == ("cancelled", "cancelled_by_user")
    eventually(lambda: runner not in tree(ready.stack.process.pid), 10, "the runner's end")


@pytest.mark.slow
def test_a_timeout_counts_all_attempts_and_kills_the_runner(ready: Ready) -> None:
    limit = 15
    job = ready.stack.submit(model=ready.model, data=ready.data, **ENDLESS | {"timeout": limit})
    os.kill(ready.stack.runner(), signal.SIGKILL)
    eventually(lambda: (info := ready.stack.info(job)).attempt == 2 and info.state == "running", limit, "the second attempt")
    runner = ready.stack.runner()
    info = ready.stack.ended(job, limit + 10)
    assert (info.state, info.reason.code if info.reason else "") == ("timed_out", "timeout")
    started = {event.attempt: event.time for event in ready.stack.events(job) if event.state == "running" and event.kind == "state"}
    assert info.finished
    assert (info.finished - started[2]).total_seconds() < limit
    eventually(lambda: runner not in tree(ready.stack.process.pid), 10, "the runner's end")


@pytest.mark.slow
def test_a_job_that_kills_every_runner_ends_as_failed(ready: Ready, undisturbed: bytes) -> None:
    """And the queue flows on."""
    job = ready.stack.submit(model=ready.model, data=ready.data, **ENDLESS)
    for attempt in range(1, ATTEMPTS + 1):
        eventually(lambda attempt=attempt: (i := ready.stack.info(job)).attempt == attempt and i.progress.phase == "attack", 60)
        os.kill(ready.stack.runner(), signal.SIGKILL)
        eventually(lambda attempt=attempt: (i := ready.stack.info(job)).attempt > attempt or i.state in FINAL, 60)
    info = ready.stack.ended(job)
    assert (info.state, info.reason.code if info.reason else "") == ("failed", "worker_lost")
    proper_end(ready.stack, ready.stack.submit(model=ready.model, data=ready.data, **LONG), undisturbed)

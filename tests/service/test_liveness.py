from pathlib import Path

import pytest
from redis import Redis
from rq import Worker
from rq.serializers import JSONSerializer

from sparring.contract.queue import QUEUES
from sparring.service import liveness
from sparring.service.liveness import Liveness
from sparring.storage import queue


def test_an_answer_is_remembered_for_a_while(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(liveness.time, "monotonic", lambda: now)
    known = Liveness(redis)
    assert known.queues() == set()
    Worker([QUEUES["cpu"]], name="w", connection=redis, serializer=JSONSerializer).register_birth()
    assert known.queues() == set()
    now += liveness.FRESH
    assert known.queues() == {QUEUES["cpu"]}


def test_that_nobody_answers_is_remembered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(liveness.queue, "alive", lambda connection: asked.append(connection) or connection.ping())
    with queue.connect(f"unix://{tmp_path / 'nobody.sock'}", hasty=True) as nobody:
        known = Liveness(nobody)
        assert known.queues() is known.queues() is None
    assert len(asked) == 1

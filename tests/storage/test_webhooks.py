"""Webhooks and the messages to them, on SQLite and PostgreSQL."""

import base64
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from sparring.contract.jobs import Job
from sparring.contract.resources import JobInfo
from sparring.contract.states import Reason
from sparring.contract.webhooks import JobEnded, NewWebhook
from sparring.storage import attempts, jobs, webhooks
from sparring.storage.errors import Missing
from sparring.storage.webhooks import GIVEN_UP

URL = "https://ci.example.com/hook"


@pytest.fixture
def hook(engine: Engine) -> NewWebhook:
    return webhooks.create(engine, project="default", url=URL)


def end(engine: Engine, job: JobInfo) -> None:
    assert attempts.finish(engine, job.id, 1, state="succeeded")


def test_a_secret_is_told_once(engine: Engine, hook: NewWebhook) -> None:
    assert len(base64.b64decode(hook.secret.removeprefix("whsec_"))) == 32
    (listed,) = webhooks.list_webhooks(engine, "default")
    assert listed.model_dump() == hook.model_dump(exclude={"secret"})
    assert webhooks.list_webhooks(engine, "other") == ()


def test_only_the_end_of_a_job_is_told_and_it_is_told_with_it(engine: Engine, hook: NewWebhook, running: JobInfo) -> None:
    assert webhooks.claim(engine, lease=60, limit=10) == []
    end(engine, running)
    (message,) = webhooks.claim(engine, lease=60, limit=10)
    assert (message.webhook, message.url, message.secret, message.tries) == (hook.id, URL, hook.secret, 0)
    told = JobEnded.model_validate_json(message.body)
    job = jobs.get(engine, "default", running.id)
    assert (told.data.id, told.data.kind, told.data.state, told.data.finished) == (job.id, "evaluate", "succeeded", job.finished)
    assert (told.data.model, told.data.data) == (job.job.model, job.job.data)


def test_a_job_that_is_cancelled_or_loses_its_last_worker_is_told_with_the_reason(
    engine: Engine, hook: NewWebhook, running: JobInfo, job: Job
) -> None:
    lost = Reason(code="worker_lost", message="gone")
    assert attempts.release(engine, running.id, 1, reason=lost, max_attempts=2)
    assert webhooks.claim(engine, lease=60, limit=10) == []
    jobs.cancel(engine, "default", running.id)
    other = jobs.accept(engine, job)[0]
    assert attempts.claim(engine, other.id, 1, worker="w", lease=60)
    assert attempts.release(engine, other.id, 1, reason=lost, max_attempts=1)
    told = [JobEnded.model_validate_json(each.body).data for each in webhooks.claim(engine, lease=60, limit=10)]
    assert {(each.id, each.state, each.reason and each.reason.code) for each in told} == {
        (running.id, "cancelled", "cancelled_by_user"),
        (other.id, "failed", "worker_lost"),
    }


def test_a_message_outlives_its_job_and_every_webhook_has_its_own(engine: Engine, hook: NewWebhook, running: JobInfo) -> None:
    other = webhooks.create(engine, project="default", url=f"{URL}/other")
    end(engine, running)
    jobs.delete(engine, "default", running.id)
    assert {each.webhook for each in webhooks.claim(engine, lease=60, limit=10)} == {hook.id, other.id}


def test_a_message_that_is_held_is_due_again_when_its_holder_says_nothing(
    engine: Engine, hook: NewWebhook, running: JobInfo, age: Callable[..., None]
) -> None:
    end(engine, running)
    held = webhooks.claim(engine, lease=60, limit=10)
    assert len(held) == 1
    assert webhooks.claim(engine, lease=60, limit=10) == []
    age("deliveries", "due", 61)
    assert webhooks.claim(engine, lease=60, limit=10) == held


def test_pauses_double_until_it_has_arrived(engine: Engine, hook: NewWebhook, running: JobInfo, age: Callable[..., None]) -> None:
    end(engine, running)
    for tries, pause in enumerate((5, 10, 20, 40)):
        (message,) = webhooks.claim(engine, lease=60, limit=10)
        assert message.tries == tries
        webhooks.failed(engine, message, "it answered 500")
        age("deliveries", "due", pause - 2)
        assert webhooks.claim(engine, lease=60, limit=10) == []
        age("deliveries", "due", 2)
    (listed,) = webhooks.list_webhooks(engine, "default")
    assert (listed.waiting, listed.delivered, listed.fault) == (1, None, "it answered 500")
    (message,) = webhooks.claim(engine, lease=60, limit=10)
    webhooks.arrived(engine, message)
    (listed,) = webhooks.list_webhooks(engine, "default")
    assert (listed.waiting, listed.fault) == (0, "")
    assert listed.delivered is not None
    age("deliveries", "due", 1e6)
    assert webhooks.claim(engine, lease=60, limit=10) == []


def test_a_receiver_may_ask_for_more_time(engine: Engine, hook: NewWebhook, running: JobInfo, age: Callable[..., None]) -> None:
    end(engine, running)
    (message,) = webhooks.claim(engine, lease=60, limit=10)
    webhooks.failed(engine, message, "it answered 429", wait=100)
    age("deliveries", "due", 98)
    assert webhooks.claim(engine, lease=60, limit=10) == []
    age("deliveries", "due", 2)
    assert len(webhooks.claim(engine, lease=60, limit=10)) == 1


def test_what_never_arrives_is_given_up_in_the_end(engine: Engine, hook: NewWebhook, running: JobInfo, age: Callable[..., None]) -> None:
    end(engine, running)
    (message,) = webhooks.claim(engine, lease=60, limit=10)
    age("deliveries", "created", GIVEN_UP + 1)
    webhooks.failed(engine, message, "it answered 500")
    (listed,) = webhooks.list_webhooks(engine, "default")
    assert (listed.waiting, listed.fault) == (0, "it answered 500; a message was given up")


def test_a_webhook_that_is_removed_is_told_nothing(engine: Engine, hook: NewWebhook, running: JobInfo) -> None:
    end(engine, running)
    for project, id in (("other", hook.id), ("default", "whk_none")):
        with pytest.raises(Missing):
            webhooks.remove(engine, project, id)
    (message,) = webhooks.claim(engine, lease=60, limit=10)
    webhooks.remove(engine, "default", hook.id)
    webhooks.failed(engine, message, "it answered 500")
    webhooks.arrived(engine, message)
    assert webhooks.claim(engine, lease=0, limit=10) == []
    assert webhooks.list_webhooks(engine, "default") == ()

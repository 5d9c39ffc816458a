"""Messages to webhooks, over real HTTP, to receivers that answer, fail, hang or are away."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text
from standardwebhooks import Webhook, WebhookVerificationError

from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.webhooks import JobEnded, WebhookInfo
from sparring.storage import attempts, jobs, uploads, webhooks
from sparring.storage.artifacts import Blob
from sparring.storage.settings import Settings
from sparring.workers import courier
from sparring.workers.courier import LEASE, Courier
from sparring.workers.dispatcher import Dispatcher

Eventually = Callable[[Callable[[], object]], Any]


class Receiver:
    """A real server: keeps what is posted, and answers what it is told to, 204 at last."""

    def __init__(self, port: int = 0, *answers: tuple[int, dict[str, str]], hang: threading.Event | None = None) -> None:
        self.got: list[tuple[dict[str, str], bytes, str]] = []
        left = list(answers)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), body, self.path))
                if hang:
                    hang.wait(60)
                status, headers = left.pop(0) if left else (204, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def engine(sqlite_engine: Engine, settings: Settings) -> Engine:
    return sqlite_engine


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """`receive(…)` starts a receiver; it ends with the test."""
    started: list[Receiver] = []
    hangs: list[threading.Event] = []

    def start(*given: Any, hang: threading.Event | None = None) -> Receiver:
        started.append(Receiver(*given, hang=hang))
        hangs.extend([hang] if hang else [])
        return started[-1]

    yield start
    for event in hangs:
        event.set()
    for one in started:
        one.close()


def allow(settings: Settings, *origins: str) -> None:
    settings.grants.write_text(json.dumps({"default": [{"origin": one} for one in origins]}))


def end_a_job(engine: Engine) -> str:
    model = uploads.add_model(engine, project="default", name="m", blob=Blob("a" * 64, 1), format="pt2", spec=ModelSpec())
    data = uploads.add_dataset(engine, project="default", name="d", blob=Blob("b" * 64, 1), format="npz", spec=DataSpec())
    body = {"kind": "evaluate", "model": model.id, "data": data.id, "threats": [{"norm": "linf", "eps": "8/255"}]}
    job, _ = jobs.accept(engine, jobs.JOB.validate_python(body))
    assert attempts.claim(engine, job.id, 1, worker="w", lease=60)
    assert attempts.finish(engine, job.id, 1, state="succeeded")
    return job.id


def later(engine: Engine, seconds: float) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE deliveries SET due = due - {seconds}"))


def state(engine: Engine) -> WebhookInfo:
    (found,) = webhooks.list_webhooks(engine, "default")
    return found


def test_the_end_of_a_job_arrives_once_signed_as_the_standard_says(
    settings: Settings, engine: Engine, receive: Callable[..., Receiver], eventually: Eventually
) -> None:
    receiver = receive()
    allow(settings, receiver.origin)
    hook = webhooks.create(engine, project="default", url=f"{receiver.origin}/hook?team=a")
    job = end_a_job(engine)
    sender = Courier(settings, engine)
    sender.tend()
    eventually(lambda: state(engine).delivered)
    sender.tend()
    ((headers, body, path),) = receiver.got
    assert (path, headers["Content-Type"], headers["Host"]) == ("/hook?team=a", "application/json", receiver.origin[7:])
    assert JobEnded.model_validate(Webhook(hook.secret).verify(body, headers)).data.id == job
    with pytest.raises(WebhookVerificationError):
        Webhook(hook.secret).verify(body.replace(b"succeeded", b"cancelled"), headers)
    assert (state(engine).waiting, state(engine).fault) == (0, "")


def test_the_dispatcher_sends_what_is_due(
    settings: Settings, engine: Engine, redis: Redis, receive: Callable[..., Receiver], eventually: Eventually
) -> None:
    receiver = receive()
    allow(settings, receiver.origin)
    webhooks.create(engine, project="default", url=receiver.origin)
    end_a_job(engine)
    assert all(chore.run(0.0) for chore in Dispatcher(settings, engine, redis).chores)
    eventually(lambda: state(engine).delivered)


def test_what_a_receiver_missed_while_it_was_away_arrives_when_it_is_back(
    settings: Settings, engine: Engine, receive: Callable[..., Receiver], eventually: Eventually, free_port: int
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    allow(settings, url)
    webhooks.create(engine, project="default", url=url)
    ended = [end_a_job(engine) for _ in range(3)]
    sender = Courier(settings, engine)
    for _ in range(2):
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhooks SET fault = ''"))
        sender.tend()
        eventually(lambda: "cannot be reached" in state(engine).fault and not sender.busy)
        later(engine, 100)
    receiver = receive(free_port)
    sender.tend()
    eventually(lambda: state(engine).waiting == 0)
    assert sorted(json.loads(body)["data"]["id"] for _, body, _ in receiver.got) == sorted(ended)


def test_a_receiver_that_fails_is_tried_again_with_the_same_message_and_left_alone_as_long_as_it_wants(
    settings: Settings, engine: Engine, receive: Callable[..., Receiver], eventually: Eventually
) -> None:
    receiver = receive(0, (500, {}), (302, {"Location": "http://127.0.0.1:1/"}), (429, {"Retry-After": "1000"}))
    allow(settings, receiver.origin)
    webhooks.create(engine, project="default", url=receiver.origin)
    end_a_job(engine)
    sender = Courier(settings, engine)
    for status, pause in ((500, 6), (302, 11), (429, 900)):
        sender.tend()
        eventually(lambda status=status: state(engine).fault == f"the receiver answered {status}" and not sender.busy)
        later(engine, pause)
    assert webhooks.claim(engine, lease=60, limit=1) == []
    later(engine, 101)
    sender.tend()
    eventually(lambda: state(engine).delivered)
    assert len({(headers["webhook-id"], body) for headers, body, _ in receiver.got}) == 1
    assert len(receiver.got) == 4


def test_a_message_outlives_the_process_that_was_sending_it(
    settings: Settings, engine: Engine, receive: Callable[..., Receiver], eventually: Eventually, tmp_path: Path
) -> None:
    stuck = threading.Event()
    receiver = receive(hang=stuck)
    allow(settings, receiver.origin)
    webhooks.create(engine, project="default", url=receiver.origin)
    end_a_job(engine)
    code = """
import sys, threading
from sparring.storage.database import connect
from sparring.storage.settings import Settings
from sparring.workers.courier import Courier
Courier(Settings(data=sys.argv[1]), connect(sys.argv[2])).tend()
threading.Event().wait()
"""
    command = [sys.executable, "-P", "-c", code, str(settings.data), engine.url.render_as_string(hide_password=False)]
    with subprocess.Popen(command) as process:
        try:
            eventually(lambda: receiver.got)
        finally:
            process.kill()
    stuck.set()
    assert state(engine).waiting == 1
    assert webhooks.claim(engine, lease=60, limit=1) == []
    later(engine, LEASE + 1)
    Courier(settings, engine).tend()
    eventually(lambda: state(engine).delivered)
    assert len(receiver.got) == 2
    assert len({headers["webhook-id"] for headers, *_ in receiver.got}) == 1


def test_a_receiver_that_hangs_keeps_no_other_waiting_and_is_cut_off(
    settings: Settings, engine: Engine, receive: Callable[..., Receiver], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, sound = receive(hang=threading.Event()), receive()
    allow(settings, hanging.origin, sound.origin)
    for one in (hanging, sound):
        webhooks.create(engine, project="default", url=one.origin)
    end_a_job(engine)
    monkeypatch.setattr(courier, "PATIENCE", 3.0)
    sender = Courier(settings, engine)
    sender.tend()
    eventually(lambda: sound.got and hanging.got)

    def by_url() -> dict[str, WebhookInfo]:
        return {one.url: one for one in webhooks.list_webhooks(engine, "default")}

    eventually(lambda: by_url()[sound.origin].delivered)
    eventually(lambda: sender.tend() or by_url()[hanging.origin].fault)
    assert by_url()[hanging.origin].waiting == 1


@pytest.mark.parametrize(
    ("url", "addresses", "said"),
    [
        ("https://hook.example/", ("10.0.0.1",), "hook.example is at 10.0.0.1, which is no public address"),
        ("https://hook.example/", ("93.184.216.34", "169.254.169.254"), "169.254.169.254, which is no public address"),
        ("https://127.0.0.1/", ("127.0.0.1",), "127.0.0.1, which is no public address"),
        ("https://[::ffff:127.0.0.1]/", ("::ffff:127.0.0.1",), "which is no public address"),
        ("http://hook.example/", ("93.184.216.34",), "http://hook.example is plain http"),
    ],
)
def test_nothing_is_sent_inside(
    settings: Settings, engine: Engine, eventually: Eventually, url: str, addresses: tuple[str, ...], said: str
) -> None:
    webhooks.create(engine, project="default", url=url)
    end_a_job(engine)
    Courier(settings, engine, lambda host, port: addresses).tend()
    eventually(lambda: said in state(engine).fault)
    assert state(engine).waiting == 1

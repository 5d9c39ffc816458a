"""Questions put to a real target over real HTTP, by the horse's side alone."""

import json
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workers.endpoints import Counting, counting
from workers.orders import wait_for

from sparring.contract.endpoints import ENDPOINT, Budget
from sparring.contract.runner import Answer, Ask, Unanswered
from sparring.storage.addresses import Resolver, resolve
from sparring.storage.grants import Grant
from sparring.workers.endpoint import LEDGER, Pace, Post

WEIGHTS = np.arange(8, dtype=np.float64).reshape(4, 2) / 7
TOKEN = "Bearer s3cr3t"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    folder = tmp_path_factory.mktemp("target")
    np.save(folder / "w.npy", WEIGHTS)
    with counting(folder, folder / "w.npy") as target:
        yield target


@pytest.fixture
def target(shared: Counting) -> Counting:
    """The target, with an empty log."""
    told = shared.told("port")
    shared.log.write_text("".join(json.dumps(line) + "\n" for line in told))
    return shared


class Asking:
    """A post and what it replies."""

    def __init__(self, folder: Path, endpoint: dict[str, Any], budget: Budget | None = None, **given: Any) -> None:
        spec = ENDPOINT.validate_python(endpoint)
        grant = Grant.model_validate({"origin": spec.origin} | given.get("grant", {}))
        resolver: Resolver = given.get("resolver", resolve)
        self.replies: dict[int, Answer | Unanswered] = {}
        self.held = True
        self.post = Post(spec, grant, budget, folder, self.hear, lambda: self.held, resolver)
        self.number = 0

    def hear(self, reply: Answer | Unanswered) -> None:
        self.replies[reply.id] = reply

    def ask(self, *rows: float, look: int = 0) -> int:
        """Rows of four equal numbers, in one question."""
        self.number += 1
        packed = tuple(struct.pack("<4f", *[row] * 4) for row in rows)
        self.post.take(Ask(id=self.number, look=look, shape=(2, 2), rows=packed))
        return self.number

    def reply(self, number: int) -> Any:
        wait_for(lambda: number in self.replies or self.post.tend() or False)
        return self.replies[number]

    def answer(self, *rows: float, look: int = 0) -> Answer:
        reply = self.reply(self.ask(*rows, look=look))
        assert isinstance(reply, Answer), reply
        return reply

    def trouble(self, *rows: float) -> tuple[str, str]:
        reply = self.reply(self.ask(*rows))
        assert isinstance(reply, Unanswered)
        assert reply.reason.hint
        return reply.reason.code, reply.reason.detail

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self.post.close()


def test_rows_are_asked_once_and_counted(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint(batch=3)) as asking:
        assert np.allclose(asking.answer(0.5, 0.25).rows, [0.5 * WEIGHTS.sum(0), 0.25 * WEIGHTS.sum(0)])
        reply = asking.answer(0.25, 1.0, 0.5)
        assert (reply.asked, reply.sent, target.asked, target.sent) == (3, 2, 3, 2)
        assert np.allclose(reply.rows[1], WEIGHTS.sum(0))
        assert asking.answer(0.5, look=1).asked == 4, "another look"
    with Asking(tmp_path, target.endpoint(batch=3)) as again:
        assert again.answer(0.5, 0.25, 1.0).sent == 3
    assert (target.asked, target.sent) == (4, 3)


def test_a_row_that_is_being_asked_is_waited_for(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint()) as asking:
        numbers = [asking.ask(0.125) for _ in range(40)]
        assert len({asking.reply(number).rows for number in numbers}) == 1
    assert (target.asked, target.sent) == (1, 1)


def test_numbers_arrive_as_they_are(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint()) as asking:
        ((first, _),) = asking.answer(0.1).rows
    assert first == (np.full(4, np.float64(np.float32(0.1))) @ WEIGHTS)[0]


@pytest.mark.parametrize("batch", [1, 4])
def test_the_budget_of_rows_is_kept_to_the_row(target: Counting, tmp_path: Path, batch: int) -> None:
    with Asking(tmp_path, target.endpoint(batch=batch), Budget(asked=10)) as asking:
        asks = [asking.ask(*(at * batch + row for row in range(batch))) for at in range(30)]
        replies = [asking.reply(number) for number in asks]
    assert target.asked == 10 // batch * batch
    answered = [reply for reply in replies if isinstance(reply, Answer)]
    assert len(answered) == 10 // batch, "what was under way when the budget was spent is answered all the same"
    refused = [reply.reason for reply in replies if isinstance(reply, Unanswered)]
    assert {(reason.code, reason.detail) for reason in refused} == {("budget_spent", "asked")}
    with Asking(tmp_path, target.endpoint(batch=batch), Budget(asked=10)) as again:
        assert again.trouble(1000.0) == ("budget_spent", "asked") if batch == 1 else True
    assert target.asked == 10 // batch * batch, "nor by starting anew"


def test_the_budget_of_requests_counts_repeated_ones(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint("/flaky/2", connections=1, retries=5), Budget(asked=100, sent=7)) as asking:
        assert [asking.answer(float(at)).sent for at in range(3)] == [2, 4, 6]
        assert asking.trouble(3.0) == ("budget_spent", "sent")
    assert (target.sent, len(target.told("answered"))) == (7, 3)


def test_what_an_operator_grants_is_a_ceiling(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint(), Budget(asked=100), grant={"asked": 2}) as asking:
        asking.answer(1.0)
        asking.answer(2.0)
        assert asking.trouble(3.0) == ("budget_spent", "asked")
    assert target.asked == 2


@pytest.mark.parametrize(
    ("path", "detail", "sent"),
    [
        ("/status/503", "status_503", 3),
        ("/status/429", "status_429", 3),
        ("/hang", "unreachable", 3),
        ("/status/400", "status_400", 1),
        ("/status/401", "status_401", 1),
        ("/status/404", "status_404", 1),
        ("/redirect", "redirect", 1),
        ("/long", "answer_too_long", 1),
    ],
)
def test_what_goes_wrong_is_told_and_only_what_may_pass_is_tried_again(
    target: Counting, tmp_path: Path, path: str, detail: str, sent: int
) -> None:
    with Asking(tmp_path, target.endpoint(path, retries=2)) as asking:
        assert asking.trouble(1.0) == ("endpoint_failed", detail)
        assert asking.trouble(2.0) == ("endpoint_failed", detail), "and from then on nothing is sent"
    assert target.sent == sent
    assert all(line["path"] == path for line in target.told("asked")), "no redirect is followed"


USELESS = ["", "<html>", "{}", '{"scores": [[1, NaN]]}', '{"scores": [[1, 1e999]]}', f'{{"scores": "{TOKEN}"}}', "[" * 400]


@pytest.mark.parametrize("said", [*USELESS, '{"scores": [[1], 2]}'], ids=lambda said: said[:30])
def test_an_answer_of_no_use_is_told_without_repeating_it(target: Counting, tmp_path: Path, said: str) -> None:
    with Asking(tmp_path, target.endpoint("/say", headers={"X-Say": said or "."})) as asking:
        reply = asking.reply(asking.ask(1.0))
        assert (reply.reason.code, reply.reason.detail) == ("endpoint_failed", "malformed_answer")
        assert TOKEN not in reply.model_dump_json()
    assert target.sent == 1


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_an_answer_that_takes_too_long_is_cut_off_however_it_comes(target: Counting, tmp_path: Path, path: str) -> None:
    with Asking(tmp_path, target.endpoint(path, timeout=0.3, retries=0)) as asking:
        began = time.monotonic()
        code, detail = asking.trouble(1.0)
        assert (code, detail in ("timed_out", "unreachable")) == ("endpoint_failed", True)
        assert time.monotonic() - began < 20, "and not after the half minute that it would take"


def test_a_connection_that_is_closed_meanwhile_costs_nothing(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint("/close", connections=1, retries=0)) as asking:
        for at in range(5):
            assert asking.answer(float(at)).sent == at + 1
    assert target.sent == 5


def test_an_endpoint_that_is_away_is_waited_for_but_not_for_ever(tmp_path: Path, free_port: int) -> None:
    endpoint = {"kind": "endpoint", "url": f"http://127.0.0.1:{free_port}/", "retries": 2}
    with Asking(tmp_path, endpoint) as asking:
        reply = asking.reply(asking.ask(1.0))
        assert reply.reason.detail == "unreachable"
        assert "Connection refused" in reply.reason.message
        assert "retry the job" in reply.reason.hint
    assert (tmp_path / LEDGER).stat().st_size == 0, "nothing was sent, so nothing was spent"


def test_the_host_is_looked_up_once_and_its_address_kept(target: Counting, tmp_path: Path) -> None:
    """Whatever the name says later: the second look-up, which would lead elsewhere, never comes."""
    looked: list[tuple[str, int]] = []

    def rebinding(host: str, port: int) -> list[str]:
        looked.append((host, port))
        return ["127.0.0.1"] if len(looked) == 1 else ["169.254.169.254"]

    endpoint = target.endpoint("/close") | {"url": f"http://rebind.example.com:{target.port}/close"}
    with Asking(tmp_path, endpoint, grant={"addresses": ["127.0.0.0/8"]}, resolver=rebinding) as asking:
        for at in range(20):
            asking.answer(float(at))
    assert looked == [("rebind.example.com", target.port)]
    assert {line["headers"]["Host"] for line in target.told("asked")} == {f"rebind.example.com:{target.port}"}


def test_a_name_that_leads_to_a_forbidden_address_is_not_connected_to(target: Counting, tmp_path: Path) -> None:
    endpoint = target.endpoint() | {"url": f"http://rebind.example.com:{target.port}/predict"}
    with Asking(tmp_path, endpoint, resolver=lambda host, port: ["127.0.0.1"]) as asking:
        assert asking.trouble(1.0) == ("target_forbidden", "address_forbidden")
    assert target.sent == 0


def test_the_second_address_is_tried_where_the_first_does_not_answer(target: Counting, tmp_path: Path) -> None:
    endpoint = target.endpoint(connections=1) | {"url": f"http://two.example.com:{target.port}/predict"}
    networks = {"addresses": ["127.0.0.0/8", "::1/128"]}
    with Asking(tmp_path, endpoint, grant=networks, resolver=lambda host, port: ["::1", "127.0.0.1"]) as asking:
        assert asking.answer(1.0).sent == 1


def test_a_secret_is_sent_and_written_nowhere(target: Counting, tmp_path: Path) -> None:
    endpoint = target.endpoint(headers={"Authorization": "secret:TOKEN", "X-Team": "red"})
    with Asking(tmp_path, endpoint, grant={"secrets": {"TOKEN": TOKEN}}) as asking:
        asking.answer(1.0)
    (asked,) = target.told("asked")
    assert (asked["headers"]["Authorization"], asked["headers"]["X-Team"]) == (TOKEN, "red")
    assert asked["headers"]["Accept-Encoding"] == "identity"
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_nothing_is_sent_once_the_job_is_not_ours(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint()) as asking:
        asking.answer(1.0)
        asking.held = False
        assert asking.trouble(2.0) == ("worker_lost", "")
    assert target.sent == 1


def test_requests_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("sparring.workers.endpoint.time.monotonic", lambda: clock[0])
    pace = Pace(10.0, None, 50.0)
    assert [pace.turn() for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    clock[0] += 10
    assert [pace.turn() for _ in range(2)] == pytest.approx([0.0, 0.1]), "turns that nobody took are not saved up"
    assert [Pace(None, None).turn() for _ in range(2)] == [0.0, 0.0]


def test_a_rate_is_kept_over_all_connections(target: Counting, tmp_path: Path) -> None:
    with Asking(tmp_path, target.endpoint(rate=20)) as asking:
        for number in [asking.ask(float(at)) for at in range(16)]:
            asking.reply(number)
    at = [line["at"] for line in target.told("answered")]
    assert max(at) - min(at) > 0.4, "fifteen gaps of 50 ms, less what the first answer took longer than the last"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of models.example.com, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=models.example.com"
    names = ["-addext", "subjectAltName=DNS:models.example.com", "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    try:
        subprocess.run([*command.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("NO OPENSSL: TLS to a pinned address was not tried")
    return folder / "cert", folder / "key"


@pytest.mark.parametrize(("host", "trusted"), [("models.example.com", True), ("other.example.com", True), ("models.example.com", False)])
def test_a_pinned_address_must_show_the_certificate_of_the_name(
    tmp_path: Path, certificate: tuple[Path, Path], host: str, trusted: bool
) -> None:
    import threading
    from http.server import HTTPServer

    from workers.target import Handler

    class Plain(Handler):
        weights, latency = WEIGHTS, 0.0
        log = (tmp_path / "log").open("w")

    server = HTTPServer(("127.0.0.1", 0), Plain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = {"kind": "endpoint", "url": f"https://{host}:{server.server_address[1]}/predict", "response": "/scores", "connections": 1}
    grant = {"addresses": ["127.0.0.1/32"]} | ({"ca": certificate[0]} if trusted else {})
    try:
        with Asking(tmp_path, endpoint, grant=grant, resolver=lambda host, port: ["127.0.0.1"]) as asking:
            if trusted and host == "models.example.com":
                assert asking.answer(1.0).sent == 1
            else:
                assert asking.trouble(1.0) == ("endpoint_failed", "certificate")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        Plain.log.close()

"""The horse's side of a model that is an endpoint: it puts the runner's questions over HTTP, within what is allowed and budgeted.

As many threads as there are connections take questions in turn; each asks what the ledger does not know, and replies.
"""

import contextlib
import http.client
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_core import from_json, to_json

from sparring.contract.endpoints import AnyEndpoint, Budget, filled, predictions
from sparring.contract.runner import Answer, Ask, Unanswered
from sparring.storage.addresses import Resolver, pinned, resolve
from sparring.storage.errors import Forbidden
from sparring.storage.grants import Grant
from sparring.workers.errors import Refused, unexpected
from sparring.workers.ledger import Ledger, key
from sparring.workers.line import MOST, Line, TooLong

LEDGER = "ledger.jsonl"
"""Its name in the folder of the job."""
_KEPT = "What was answered so far is kept: when the endpoint is well again retry the job, and it goes on without repeating a query."
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_PARTING = 2.0
"""Seconds that requests under way get at the end, so that what they cost is not lost."""


class _Again(Exception):
    """It may go better another time; `why` is what to tell if it never does."""

    def __init__(self, why: Refused, wait: float = 0.0) -> None:
        super().__init__(str(why))
        self.why, self.wait = why, wait


def refused(error: Forbidden) -> Refused:
    """The reason for which a job on a forbidden endpoint fails."""
    return Refused("target_forbidden", error.message, hint=error.hint, detail=error.code)


class Pace:
    """At most so many requests a second, evenly spaced."""

    def __init__(self, *rates: float | None) -> None:
        """The lowest of the rates, requests a second, holds; None is none."""
        self._gap = max((1 / rate for rate in rates if rate), default=0.0)
        self._due, self._lock = 0.0, threading.Lock()

    def turn(self) -> float:
        """Seconds until it is the caller's turn."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._due)
            self._due = at + self._gap
            return at - now


class Post:
    """Answers questions. The reason of the first that has no answer is that of all later ones which would have to be sent."""

    def __init__(
        self,
        endpoint: AnyEndpoint,
        grant: Grant,
        budget: Budget | None,
        folder: Path,
        reply: Callable[[Answer | Unanswered], None],
        held: Callable[[], bool] = lambda: True,
        resolver: Resolver = resolve,
    ) -> None:
        """Open the ledger and begin to wait for questions.

        Args:
            endpoint: who is asked.
            grant: what is allowed of it.
            budget: what the job may spend.
            folder: of the job, for the ledger.
            reply: where replies go; called by one thread at a time.
            held: whether the job is still ours; nothing is sent when it is not.
            resolver: looks up the endpoint's host, once.

        Raises:
            OSError: the ledger cannot be opened, or the file of certificates cannot be read.
        """
        self._endpoint, self._grant, self._budget = endpoint, grant, grant.budget(budget)
        self.most = endpoint.batch
        """Rows of a question."""
        self._held, self._reply, self._resolver = held, reply, resolver
        self._pace = Pace(endpoint.rate, grant.rate)
        address = urlsplit(endpoint.address)
        self._target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        self._host, self._origin = endpoint.host, endpoint.origin
        self._headers = grant.headers(endpoint)
        self._plain = {"Host": self._origin.partition("://")[2], "Content-Type": "application/json", "User-Agent": "sparring"}
        self._pinned: Sequence[str] = ()
        self._looking, self._replying = threading.Lock(), threading.Lock()
        self._turn = threading.Condition()
        self._flying: set[str] = set()
        self._trouble: Refused | None = None
        self._over = threading.Event()
        context = ssl.create_default_context(cafile=grant.ca) if address.scheme == "https" else None
        self._ledger = Ledger(folder / LEDGER)
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._lines = [Line(*self._host, self._addresses, context, endpoint.timeout) for _ in range(endpoint.connections)]
        self._threads = [threading.Thread(target=self._serve, args=(line,), daemon=True) for line in self._lines]
        for thread in self._threads:
            thread.start()

    def take(self, ask: Ask) -> None:
        """A question; it is replied to in time."""
        self._asks.put(ask)

    def tend(self) -> None:
        """To be called now and then: cuts off requests that take too long."""
        for line in self._lines:
            line.tend()

    def close(self) -> None:
        """No question is sent any more; what is under way gets a moment to be answered and written down."""
        self._over.set()
        for _ in self._threads:
            self._asks.put(None)
        until = time.monotonic() + _PARTING
        for over in (False, True):
            for thread in self._threads:
                thread.join(max(0.0, until - time.monotonic()) + 0.1 * over)
            if not over:
                for line in self._lines:
                    line.tend(over=True)
        if not any(thread.is_alive() for thread in self._threads):
            self._ledger.close()

    def _serve(self, line: Line) -> None:
        while (ask := self._asks.get()) is not None:
            if self._over.is_set():
                continue
            reply = self._replied(line, ask)
            with self._replying, contextlib.suppress(OSError):  # the runner has gone; the horse finds out by itself
                self._reply(reply)
        line.close()

    def _replied(self, line: Line, ask: Ask) -> Answer | Unanswered:
        try:
            return self._answer(line, ask)
        except Refused as error:
            with self._turn:
                self._trouble = self._trouble or error
            return Unanswered(id=ask.id, reason=error.reason)
        except Exception as error:  # told to the user like any fault of ours; the other threads go on
            return Unanswered(id=ask.id, reason=unexpected(error))

    def _answer(self, line: Line, ask: Ask) -> Answer:
        """From the ledger as far as it knows; what another thread is just asking is waited for."""
        names = [key(ask.look, row) for row in ask.rows]
        with self._turn:
            self._turn.wait_for(lambda: self._flying.isdisjoint(names))
            missing = {name: row for name, row in zip(names, ask.rows, strict=True) if name not in self._ledger}
            self._flying.update(missing)
        try:
            fresh = self._learn(line, ask.shape, missing) if missing else {}
        finally:
            with self._turn:
                self._flying.difference_update(missing)
                self._turn.notify_all()
        with self._turn:
            rows = tuple(fresh.get(name) or self._ledger.answer(name) for name in names)
            return Answer(id=ask.id, rows=rows, asked=self._ledger.asked, sent=self._ledger.sent)

    def _learn(self, line: Line, shape: tuple[int, ...], rows: dict[str, bytes]) -> dict[str, tuple[float, ...]]:
        """Ask for rows, over and over while it may help."""
        numbers = [memoryview(row).cast("f") for row in rows.values()]
        nested = [memoryview(row).cast("f", shape).tolist() for row in rows.values()]
        flat = [number for row in numbers for number in row]
        body = to_json(filled(self._endpoint.request, nested, shape, flat))
        pause = _FIRST_PAUSE
        for left in reversed(range(self._endpoint.retries + 1)):
            try:
                return self._once(line, body, list(rows))
            except _Again as again:
                if not left:
                    raise again.why from again
                self._rest(max(pause, min(again.wait, _LONGEST_PAUSE)))
                pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("there is a last time")

    def _once(self, line: Line, body: bytes, names: list[str]) -> dict[str, tuple[float, ...]]:
        self._rest(self._pace.turn())
        headers = self._plain | {name: value.get_secret_value() for name, value in self._headers.items()}
        with self._calling():
            line.ready()
        with self._turn:
            self._ledger.spend(names, self._budget)
        with self._calling():
            said = line.post(self._target, body, headers)
        self._check(said.status, said.wait)
        return self._read(said.body, names)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """What goes wrong on the way, as what to tell of it."""
        try:
            yield
        except Forbidden as error:
            raise refused(error) from error
        except TooLong as error:
            raise self._failed(f"answers with more than {MOST} bytes", "answer_too_long") from error
        except ssl.SSLCertVerificationError as error:
            raise self._failed(f"has no valid certificate: {error.verify_message}", "certificate") from error
        except TimeoutError as error:
            raise _Again(self._failed(f"did not answer within {self._endpoint.timeout:g} s", "timed_out")) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Again(self._failed(f"cannot be reached, or hangs up ({_words(error)})", "unreachable")) from error

    def _check(self, status: int, wait: str) -> None:
        if status == 429 or status >= 500:
            raise _Again(self._failed(f"answers with status {status}", f"status_{status}"), float(wait) if wait.isdecimal() else 0.0)
        if 300 <= status < 400:
            raise self._failed(f"answers with a redirect (status {status}), which is not followed", "redirect")
        if not 200 <= status < 300:
            raise self._failed(f"answers with status {status}", f"status_{status}")

    def _read(self, body: bytes, names: list[str]) -> dict[str, tuple[float, ...]]:
        try:
            answer = from_json(body, allow_inf_nan=False)
            rows = predictions(answer, self._endpoint.response, len(names), self._endpoint.gives)
        except ValueError as error:
            raise self._failed(f"gives an answer of no use: {str(error)[:200]}", "malformed_answer") from error
        with self._turn:
            self._ledger.learn(names, rows)
        return {name: tuple(row) for name, row in zip(names, rows, strict=True)}

    def _rest(self, seconds: float) -> None:
        """Wait, unless it is over: then nothing is sent any more."""
        if self._over.wait(seconds) or not self._held():
            raise Refused("worker_lost", "The worker was stopped before the job was done.", hint="Retry the job to go on where it stopped.")
        if self._trouble:
            raise self._trouble

    def _addresses(self) -> Sequence[str]:
        """Looked up once, by whoever comes first."""
        with self._looking:
            self._pinned = self._pinned or pinned(*self._host, self._grant.networks, self._resolver)
            return self._pinned

    def _failed(self, what: str, detail: str) -> Refused:
        return Refused("endpoint_failed", f"The endpoint {self._origin} {what}.", hint=_KEPT, detail=detail)


def _words(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__

"""An endpoint as a row process sees it: questions go down the pipe to the runner, which passes them to the horse; no socket is opened."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn

from sparring.attacks.access import Near, Target
from sparring.contract.endpoints import AnyEndpoint
from sparring.contract.report import Finding
from sparring.contract.runner import Answer, Ask, Unanswered
from sparring.contract.specs import ModelSpec
from sparring.workers.errors import Refused
from sparring.workers.models import Loaded, check_classes
from sparring.workers.wire import send

Rows = list[tuple[float, ...]]
Enquire = Callable[[list[Ask]], Rows]
"""Questions in, what is answered for each of their rows out, in their order."""

SEARCH, JUDGE, AGAIN = 0, 1, 2
"""Looks: the attack's, the judge's, and from there on the judge's when it is asked once more. Under each a row is asked only once."""
MOST_BYTES = 4 << 20
"""Of a row, so that the longest line stays well below what a reader takes."""


class Asked(nn.Module):
    """Rows (B, …) in, scores (B, K) float64 out; an endpoint that gives labels has a score of 1 for that class and 0 for others."""

    def __init__(self, enquire: Enquire, spec: ModelSpec, endpoint: AnyEndpoint, look: int) -> None:
        """Ask under a look."""
        super().__init__()
        self.enquire, self.spec, self.endpoint, self.look = enquire, spec, endpoint, look
        self.classes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Each distinct row is asked once, in questions of `batch` rows. Raises Refused where there is no answer, or one of no use."""
        raw = [row.tobytes() for row in x.detach().float().cpu().contiguous().numpy()]
        if raw and len(raw[0]) > MOST_BYTES:
            hint = "Attack the model itself, as a file, or give it smaller inputs."
            raise Refused("unsupported", f"a row of {len(raw[0])} bytes is too large for an endpoint", hint=hint, detail="row_too_large")
        distinct = list(dict.fromkeys(raw))
        batch = max(1, min(self.endpoint.batch, MOST_BYTES // max(1, len(raw[0])))) if raw else 1
        parts = [tuple(distinct[at : at + batch]) for at in range(0, len(distinct), batch)]
        shape = tuple(x.shape[1:]) or (1,)
        asks = [Ask(id=at, look=self.look, shape=shape, rows=part) for at, part in enumerate(parts)]
        answers = dict(zip(distinct, self.enquire(asks), strict=True))
        return self._scores([answers[row] for row in raw]).to(x.device)

    def _scores(self, rows: Rows) -> Tensor:
        if self.endpoint.gives == "labels":
            return self._one_hot(torch.tensor([row[0] for row in rows]).long())
        for row in rows:
            if not self.classes:
                check_classes(len(row), self.spec)
                self.classes = len(row)
            if len(row) != self.classes:
                message = f"the endpoint gave {self.classes} scores for one row and {len(row)} for another"
                raise Refused("endpoint_failed", message, hint="A classifier gives one score per class.", detail="malformed_answer")
        return torch.tensor(rows, dtype=torch.float64)

    def _one_hot(self, labels: Tensor) -> Tensor:
        self.classes = self.spec.classes or 0
        if int(labels.amax()) >= self.classes:
            message = f"the endpoint answers class {int(labels.amax())}, but {self.classes} classes are declared"
            raise Refused("bad_model", message, hint="Register it with the right number of classes.", detail="shape_mismatch")
        return nn.functional.one_hot(labels, self.classes).double()

    @contextmanager
    def afresh(self, time: int) -> Iterator[None]:
        """Meanwhile rows are asked under another look."""
        look, self.look = self.look, AGAIN + time
        try:
            yield
        finally:
            self.look = look


class Remote(Target):
    """A target behind an endpoint: it has no inside by which a search could be made quicker."""

    def near(self, like: Tensor) -> Near:
        """Scores in full."""
        return lambda name, x, worth: self.logits(x)

    def ahead(self, rows: int) -> int:
        """Every look is a question to somebody else: none is asked that may not be needed."""
        return 1


def load_endpoint(spec: ModelSpec, enquire: Enquire | None) -> Loaded:
    """An endpoint, as judge and as what attacks search on. It is not asked anything yet."""
    endpoint = spec.endpoint
    if endpoint is None or enquire is None:
        raise RuntimeError("there is nobody to ask an endpoint")
    gives = "its labels" if endpoint.gives == "labels" else "its scores"
    only = Finding(
        code="score_access_only" if endpoint.access == "score" else "label_access_only",
        message=f"The model is the endpoint {endpoint.origin}, attacked through {gives} alone.",
        hint="Attacks that follow gradients are stronger: where you have the model itself, evaluate that.",
    )
    return Loaded(
        Asked(enquire, spec, endpoint, JUDGE),
        endpoint.shape,
        0,
        (only,),
        torch.float32,
        spec.classes or 0,
        f"the endpoint {endpoint.origin}, asked over HTTP",
        search=Asked(enquire, spec, endpoint, SEARCH),
        access=endpoint.access,
    )


def down(wire: Connection) -> Enquire:
    """Asks the runner at the other end of a pipe."""

    def enquire(asks: list[Ask]) -> Rows:
        for ask in asks:
            wire.send(ask)
        answers: dict[int, tuple[tuple[float, ...], ...]] = {}
        while len(answers) < len(asks):
            reply: Answer | Unanswered = wire.recv()
            if isinstance(reply, Unanswered):
                why = reply.reason
                raise Refused(why.code, why.message, hint=why.hint, detail=why.detail)
            answers[reply.id] = reply.rows
        return [row for ask in asks for row in answers[ask.id]]

    return enquire


class Desk:
    """In the runner: passes on what row processes ask, and what is answered to the one that asked."""

    def __init__(self, wire: socket.socket) -> None:
        """Pass questions on to the horse at the other end of `wire`."""
        self._wire = wire
        self._numbers = itertools.count()
        self._asked: dict[int, tuple[Connection | None, int]] = {}
        self._lock, self._replying = threading.Lock(), threading.Lock()
        self.asked = self.sent = 0
        """Rows asked and requests sent so far, in all attempts of the job."""

    def ask(self, ask: Ask, of: Connection) -> None:
        """Pass a question on."""
        number = next(self._numbers)
        with self._lock:
            self._asked[number] = of, ask.id
        send(self._wire, ask.model_copy(update={"id": number}))

    def reply(self, reply: Answer | Unanswered) -> None:
        """Pass a reply back; one that nobody waits for any more is dropped."""
        with self._replying:
            with self._lock:  # and not while sending: who waits may itself be asking
                if isinstance(reply, Answer):
                    self.asked, self.sent = max(self.asked, reply.asked), max(self.sent, reply.sent)
                of, ident = self._asked.pop(reply.id, (None, 0))
            if of is not None:
                with suppress(OSError):  # it has been ended
                    of.send(reply.model_copy(update={"id": ident}))

    def forget(self) -> None:
        """Those who asked have been ended: nobody waits any more."""
        with self._replying, self._lock:
            self._asked.clear()

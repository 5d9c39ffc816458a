"""Webhooks: messages are sent until they have arrived, signed as the Standard Webhooks want it.

A message is held for a while by the process that sends it. If that process dies, or cannot tell what came of it, it is sent again
under the same id: it may arrive twice, and is never lost.
"""

import http.client
import ssl
import threading
from datetime import UTC, datetime
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Engine
from standardwebhooks import Webhook

from sparring.contract.endpoints import host, origin
from sparring.storage import grants, webhooks
from sparring.storage.addresses import Resolver, pinned, resolve
from sparring.storage.errors import Forbidden
from sparring.storage.settings import Settings
from sparring.storage.webhooks import Delivery
from sparring.workers.line import Line, Said, TooLong

AT_ONCE = 8
"""Messages under way at once, at most."""
PATIENCE = 10.0
"""Seconds in which a receiver must answer."""
LEASE = 60.0
"""Seconds for which a message is held while it is sent."""
_ADDRESSES = 4
"""Of a receiver, that are tried: what takes longer would outlast the lease."""

_log = structlog.get_logger(__name__)


def signed(delivery: Delivery, when: datetime) -> dict[str, str]:
    """The headers that prove where a message comes from, and that it is whole and fresh."""
    signature = Webhook(delivery.secret).sign(delivery.id, when, delivery.body)
    return {"webhook-id": delivery.id, "webhook-timestamp": str(int(when.timestamp())), "webhook-signature": signature}


class Courier:
    """Sends messages, each in a thread of its own, so that a slow receiver keeps nothing else waiting."""

    def __init__(self, settings: Settings, engine: Engine, resolver: Resolver = resolve) -> None:
        self._settings, self._engine, self._resolver = settings, engine, resolver
        self._under_way: dict[str, Line | None] = {}
        """By the id of the message; no line yet where its receiver is being looked up."""
        self._turn = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a message is under way."""
        with self._turn:
            return bool(self._under_way)

    def tend(self) -> None:
        """To be called now and then: cuts off what takes too long, and sends what is due."""
        with self._turn:
            lines = list(self._under_way.values())
        for line in filter(None, lines):
            line.tend()
        free = AT_ONCE - len(lines)
        for delivery in webhooks.claim(self._engine, lease=LEASE, limit=free) if free > 0 else ():
            with self._turn:
                self._under_way[delivery.id] = None
            # A daemon: the dispatcher ends when it is told to, and what was under way is sent again.
            threading.Thread(target=self._deliver, args=(delivery,), name=delivery.id, daemon=True).start()

    def _deliver(self, delivery: Delivery) -> None:
        try:
            fault, wait = self._sent(delivery)
            if fault:
                _log.warning("webhook failed", webhook=delivery.webhook, message=delivery.id, tries=delivery.tries + 1, fault=fault)
                webhooks.failed(self._engine, delivery, fault, wait=wait)
            else:
                webhooks.arrived(self._engine, delivery)
        except Exception:  # nobody else would hear of it; the message is due again when its lease is over
            _log.exception("webhook failed", webhook=delivery.webhook, message=delivery.id)
        finally:
            with self._turn:
                del self._under_way[delivery.id]

    def _sent(self, delivery: Delivery) -> tuple[str, float]:
        """Why a message did not arrive, empty if it did, and the seconds that the receiver wants to be left alone."""
        try:
            said = self._post(delivery)
        except Forbidden as error:
            return error.message, 0.0
        except TooLong:
            return "the answer is too long", 0.0
        except ssl.SSLCertVerificationError as error:
            return f"the receiver has no valid certificate: {error.verify_message}", 0.0
        except TimeoutError:
            return f"the receiver did not answer within {PATIENCE:g} s", 0.0
        except (OSError, http.client.HTTPException) as error:
            return f"the receiver cannot be reached, or hangs up ({type(error).__name__})", 0.0
        if 200 <= said.status < 300:
            return "", 0.0
        return f"the receiver answered {said.status}", float(said.wait) if said.wait.isdecimal() else 0.0

    def _post(self, delivery: Delivery) -> Said:
        grant = grants.receiver(self._settings.grants, delivery.project, delivery.url)
        where, parts = host(delivery.url), urlsplit(delivery.url)
        # Looked up once for every try: the name may not point elsewhere between the check and the request.
        addresses = pinned(*where, grant.networks if grant else (), self._resolver)[:_ADDRESSES]
        context = ssl.create_default_context(cafile=grant.ca if grant else None) if parts.scheme == "https" else None
        line = Line(*where, lambda: addresses, context, PATIENCE)
        headers = {"Host": origin(delivery.url).partition("://")[2], "Content-Type": "application/json", "User-Agent": "sparring"}
        with self._turn:
            self._under_way[delivery.id] = line
        try:
            line.ready()
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            return line.post(target, delivery.body.encode(), headers | signed(delivery, datetime.now(UTC)))
        finally:
            line.close()

"""One connection to an endpoint, kept open from request to request.

http.client follows no redirects, keeps no cookies, unpacks nothing and knows no proxies, which is all as it should be here.
"""

import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

PATIENCE = 5.0
"""Seconds for a connection to come about."""
MOST = 16 << 20
"""Bytes of an answer."""


class TooLong(Exception):
    """The answer is longer than MOST bytes."""


class Said(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    wait: str
    """What it says in Retry-After."""


class Line(http.client.HTTPConnection):
    """To the addresses given and no others, under the endpoint's own name. Errors are OSError and http.client.HTTPException."""

    def __init__(
        self, host: str, port: int, addresses: Callable[[], Sequence[str]], context: ssl.SSLContext | None, patience: float
    ) -> None:
        """Nothing is opened yet.

        Args:
            host: the endpoint's name, for TLS.
            port: its port.
            addresses: where it is.
            context: for TLS; None for plain HTTP.
            patience: seconds in which a request must be answered whole.
        """
        super().__init__(host, port, timeout=patience)
        self._addresses, self._context, self._patience = addresses, context, patience
        self._due: float | None = None

    def connect(self) -> None:
        """Open it: the first address that answers."""
        self.sock = _first(self._addresses(), self.port)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.settimeout(self._patience)

    def ready(self) -> None:
        """Have it open: one that the other side has closed meanwhile is opened anew, before anything is sent."""
        if self.sock is not None and select.select([self.sock], [], [], 0)[0]:
            self.close()
        if self.sock is None:
            self._due = time.monotonic() + self._patience
            try:
                self.connect()
            except BaseException:
                self.close()
                raise
            finally:
                self._due = None

    def post(self, target: str, body: bytes, headers: dict[str, str]) -> Said:
        """One request. Raises TooLong, and whatever is wrong with the connection, which is closed then."""
        self._due = time.monotonic() + self._patience
        try:
            self.request("POST", target, body, headers)
            response = self.getresponse()
            said = Said(response.status, _whole(response), response.headers.get("Retry-After", ""))
        except BaseException:
            self.close()
            raise
        finally:
            self._due = None
        return said

    def tend(self, *, over: bool = False) -> None:
        """From another thread: cut off what has taken too long, or with `over` whatever it is."""
        late = self._due is not None and time.monotonic() > self._due
        with suppress(OSError, AttributeError):  # closed meanwhile
            if late or over:
                self.sock.shutdown(socket.SHUT_RDWR)


def _first(addresses: Sequence[str], port: int) -> socket.socket:
    for at, address in enumerate(addresses, 1):
        try:
            return socket.create_connection((address, port), PATIENCE)
        except OSError:
            if at == len(addresses):
                raise
    raise OSError("there is no address")


def _whole(response: http.client.HTTPResponse) -> bytes:
    body = response.read(MOST + 1)
    if len(body) > MOST:
        raise TooLong
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return body

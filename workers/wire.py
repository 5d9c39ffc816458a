"""JSON lines over a socket, with a cap on the length of a line."""

import socket
from collections.abc import Iterator

from sparring.contract.base import Frozen

MAX_LINE = 1 << 20


def send(wire: socket.socket, message: Frozen) -> None:
    """Write one message."""
    wire.sendall(message.model_dump_json().encode() + b"\n")


class Lines:
    """The lines that arrive, whole ones only."""

    def __init__(self, wire: socket.socket) -> None:
        """Read from `wire`."""
        self._wire = wire
        self._rest = b""
        self.ended = False

    def read(self, timeout: float | None) -> Iterator[bytes]:
        """Lines complete after at most one wait of `timeout` seconds (None: as long as it takes). Sets `ended` at EOF.

        Raises:
            ValueError: a line is longer than MAX_LINE bytes.
        """
        self._wire.settimeout(timeout)
        try:
            received = self._wire.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionError:
            received = b""
        self.ended = not received
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise ValueError(f"a line on the wire is longer than {MAX_LINE} bytes")
        yield from lines

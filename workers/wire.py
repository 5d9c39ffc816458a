"""JSON lines over a socket, with a cap on the length of a line."""

import socket
from collections.abc import Iterator
from multiprocessing.connection import wait

from sparring.contract.base import Frozen

MAX_LINE = 1 << 20
MAX_BODY = 32 << 20
"""The cap where lines carry rows for an endpoint, or what it answers."""


def send(wire: socket.socket, message: Frozen) -> None:
    """Write one message."""
    wire.sendall(message.model_dump_json().encode() + b"\n")


class Lines:
    """The lines that arrive, whole ones only."""

    def __init__(self, wire: socket.socket, longest: int = MAX_LINE) -> None:
        """Read lines of at most `longest` bytes from `wire`."""
        self._wire, self._longest = wire, longest
        self._rest = bytearray()
        self.ended = False

    def read(self, timeout: float | None) -> Iterator[bytes]:
        """Lines complete after at most one wait of `timeout` seconds (None: as long as it takes). Sets `ended` at EOF.

        Raises:
            ValueError: a line is longer than `longest` bytes.
        """
        # Not by the socket's own timeout, which would hold for whoever writes to it as well.
        if timeout is not None and not wait([self._wire], timeout):
            return
        try:
            received = self._wire.recv(1 << 16)
        except ConnectionError:
            received = b""
        self.ended = not received
        *lines, rest = received.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self._longest:
            raise ValueError(f"a line on the wire is longer than {self._longest} bytes")
        yield from lines

"""The socket the API listens on."""

import socket

from sparring.storage.settings import Settings


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the settings' address. Raises OSError where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)


def url(listening: socket.socket) -> str:
    """The address under which this machine reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"

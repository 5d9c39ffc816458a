"""Which queues have a live worker, without making anybody wait for a Redis that does not answer."""

import threading
import time

from redis import Redis

from sparring.storage import queue

FRESH = 1.0
"""Seconds for which an answer is remembered."""


class Liveness:
    """Asks at most once in a while, one caller at a time; whoever comes meanwhile waits for that answer, half a second or so at most.

    Args:
        redis: a hasty connection.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._lock = threading.Lock()
        self._known: set[str] | None = None
        self._until = 0.0

    def queues(self) -> set[str] | None:
        """Names of the queues that a live worker listens on; None when the queue cannot be reached."""
        with self._lock:
            if time.monotonic() >= self._until:
                try:
                    self._known = queue.alive(self._redis)
                except queue.Unreachable:
                    self._known = None
                self._until = time.monotonic() + FRESH
            return self._known

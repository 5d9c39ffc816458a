"""A target that counts, as a process of its own: `python target.py LOG PORT WEIGHTS LATENCY`.

It is a linear classifier on flat rows, and writes to LOG, one JSON line each, what it is asked, before it is asked further. What
a path says decides how it answers: /predict, /labels, /status/503, /flaky/3 (well the third time), /slow, /drip, /redirect, ….
"""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    weights: np.ndarray
    latency: float
    log: Any
    lock = threading.Lock()
    seen: ClassVar[dict[tuple[str, ...], int]] = {}
    """How often the same was asked."""
    busy = 0.0
    """Seconds in which requests were being answered, summed over requests."""

    def do_POST(self) -> None:
        began = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        rows = json.loads(body)["inputs"]
        digests = [hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in rows]
        with self.lock:
            seen = Handler.seen[self.path, *digests] = Handler.seen.get((self.path, *digests), 0) + 1
            self.write({"asked": digests, "path": self.path, "headers": dict(self.headers), "peer": self.client_address[0]})
        time.sleep(max(0.0, self.latency - (time.monotonic() - began)))
        if self.answer(rows, seen):
            with self.lock:
                Handler.busy += time.monotonic() - began
                self.write({"answered": digests, "at": time.monotonic(), "busy": Handler.busy})

    def answer(self, rows: list[Any], seen: int) -> bool:
        """Whether it was answered as it should be; this is the `seen`-th time."""
        _, kind, *rest = self.path.split("?")[0].split("/")
        if kind == "status" or (kind == "flaky" and seen % int(rest[0])):
            self.reply(int(rest[0]) if kind == "status" else 503, b"{}", {"Retry-After": "0"})
            return False
        if kind == "redirect":
            self.reply(307, b"", {"Location": "/predict"})
            return False
        if kind == "slow":
            time.sleep(30)
        if kind == "hang":
            self.close_connection = True
            return False
        if kind == "say":
            self.reply(200, self.headers["X-Say"].encode())
            return False
        if kind == "long":
            self.reply(200, b" " * (17 << 20))
            return False
        if kind == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(600):
                self.wfile.write(b" ")
                time.sleep(0.05)
            return False
        scores = np.asarray(rows, dtype=np.float64).reshape(len(rows), -1) @ self.weights
        answer = {"scores": scores.tolist()} if kind != "labels" else {"scores": scores.argmax(1).tolist()}
        self.reply(200, json.dumps(answer).encode(), {"Connection": "close"} if kind == "close" else {})
        return True

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def write(self, told: dict[str, Any]) -> None:
        self.log.write(json.dumps(told) + "\n")
        self.log.flush()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Callers hang up as they like."""


if __name__ == "__main__":
    log, port, weights, latency = sys.argv[1:]
    Handler.log = open(log, "a")  # noqa: SIM115  # open for as long as the process lives
    Handler.weights, Handler.latency = np.load(weights), float(latency)
    server = Server(("127.0.0.1", int(port)), Handler)
    Handler.write(Handler, {"port": server.server_address[1]})  # type: ignore[arg-type]
    server.serve_forever()

"""How busy is an endpoint kept? `make busy`: a target that takes 20 ms for each request, attacked by Square over 16 connections.

The target is a process of its own. It tells for how long requests were in its hands; connections times wall clock is what could be.
The first and the last tenth of the answers are left out: there the attack is starting, or its last rows are too few.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparring import Client
from sparring.contract.attacks import Square
from sparring.contract.endpoints import HttpEndpoint
from sparring.contract.jobs import Evaluate
from sparring.contract.specs import DataSpec
from sparring.contract.threat import Threat
from sparring.local import started

LATENCY, CONNECTIONS, ROWS, CLASSES = 0.020, 16, 600, 10


def serve(port: int, log: Path) -> None:
    """The target: a linear model that nobody breaks, so that all rows are attacked to the end."""
    import uvicorn

    weight = np.random.default_rng(0).normal(size=(64, CLASSES))
    held = 0.0
    lines = log.open("w", buffering=1)

    async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        nonlocal held
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        began = time.monotonic()
        await asyncio.sleep(LATENCY)
        scores = np.asarray(json.loads(body)["inputs"]).reshape(-1, 64) @ weight
        held += time.monotonic() - began
        lines.write(f"{time.monotonic()} {held}\n")
        answer = json.dumps(scores.tolist()).encode()
        length = str(len(answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, port=port, log_level="error", access_log=False)


def share(log: Path) -> tuple[float, float]:
    """Of what the connections could carry: what was in the target's hands, and how many requests of LATENCY were answered."""
    told = np.loadtxt(log)
    first, last = len(told) // 10, len(told) * 9 // 10
    seconds, held = told[last] - told[first]
    return held / seconds / CONNECTIONS, (last - first) * LATENCY / seconds / CONNECTIONS


def attack(client: Client, port: int, folder: Path, queries: int) -> float:
    """Seconds that a job took."""
    draw = np.random.default_rng(1)
    x = draw.random((ROWS, 1, 8, 8), dtype=np.float32)
    weight = np.random.default_rng(0).normal(size=(64, CLASSES))
    np.savez(folder / "rows.npz", x=x, y=(x.reshape(ROWS, -1) @ weight).argmax(1))
    model = client.models.register(HttpEndpoint(url=f"http://127.0.0.1:{port}/", connections=CONNECTIONS))
    data = client.datasets.upload(folder / "rows.npz", spec=DataSpec(bounds=(0.0, 1.0)))
    threat = Threat(norm="linf", eps=1e-6)
    job = client.jobs.submit(Evaluate(model=model.id, data=data.id, threats=(threat,), attacks=(Square(queries=queries),)))
    client.jobs.wait(job.id)
    return client.jobs.report(job.id).cost.wall_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how busy an endpoint is kept.")
    parser.add_argument("--queries", type=int, default=25, help="of Square, for each row")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(int(given.serve[0]), Path(given.serve[1]))
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "endpoints.json").write_text(json.dumps({"default": [{"origin": f"http://127.0.0.1:{port}"}]}))
        target = subprocess.Popen([sys.executable, "-P", __file__, "--serve", str(port), str(folder / "log")])
        try:
            with started(folder / "data") as (running, _), Client(running.url, running.key) as client:
                seconds = attack(client, port, folder, given.queries)
            held, carried = share(folder / "log")
        finally:
            target.kill()
            target.wait()
    load = os.getloadavg()[0]
    print(f"{seconds:.1f} s; requests were in the target's hands for {held:.0%} of what {CONNECTIONS} connections could carry;")
    print(f"answered were {carried:.0%} of the requests of {1000 * LATENCY:.0f} ms that fit (load average {load:.1f})")


if __name__ == "__main__":
    main()

"""The runner: a fresh interpreter that serves exactly one job. It holds no credentials and opens no socket.

It imports torch ahead, waits for one order, forks its row processes, directs them shard by shard, and writes the report.
"""

import argparse
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import sparring
from sparring.contract.runner import Done, Failed, Order, Told
from sparring.contract.states import Progress, Reason
from sparring.workers import assemble, shard
from sparring.workers.assemble import Run
from sparring.workers.bench import Facts
from sparring.workers.crew import Advanced, Attack, Crew, CrewError
from sparring.workers.wire import Lines, send

_TILE = {"cpu": 64, "cuda": 256}
_SMALLEST_TILE = 16
_SHARD = 1024


class Plan(NamedTuple):
    """How the rows are cut into shards. A function of the job alone, so that another attempt cuts them the same."""

    digest: str
    shards: tuple[NDArray[np.int64], ...]


def plan(order: Order, rows: int, tile: int) -> Plan:
    """Rows in an order drawn from the seed, in shards of whole tiles: small enough to share out, large enough to fill passes."""
    size = min(_SHARD, max(2 * tile, -(-rows // (16 * tile)) * tile))
    drawn = np.random.Generator(np.random.PCG64(order.job.seed)).permutation(rows).astype(np.int64)
    text = json.dumps([order.job.model_dump(mode="json"), order.model.sha256, order.model.spec.model_dump(mode="json"), order.data.sha256,
                       order.data.spec.model_dump(mode="json"), tile, size, sparring.__version__, torch.__version__])  # fmt: skip
    return Plan(hashlib.sha256(text.encode()).hexdigest(), tuple(drawn[at : at + size] for at in range(0, rows, size)))


class Pace:
    """Progress as it is told: counts, rate and time to go. At most a few times a second."""

    def __init__(self, wire: socket.socket) -> None:
        """Tell it on `wire`."""
        self._wire = wire
        self._began = self._told = time.monotonic()
        self._done = self._skipped = 0
        self.total = 0

    def phase(self, name: str, total: int = 0, done: int = 0) -> None:
        """Begin a phase of `total` row-attacks, `done` of them already there."""
        self._began, self._done, self.total, self._skipped = time.monotonic(), done, total, done
        self._tell(name)

    def advance(self, name: str, count: int) -> None:
        """So many more are done."""
        self._done += count
        if time.monotonic() - self._told > 0.2 or self._done >= self.total:
            self._tell(name)

    def _tell(self, name: str) -> None:
        self._told = time.monotonic()
        fresh, spent = self._done - self._skipped, self._told - self._began
        rate = fresh / spent if spent > 0 else 0.0
        eta = (self.total - self._done) / rate if rate else None
        send(self._wire, Told(progress=Progress(phase=name, done=self._done, total=self.total, rate=rate, eta=eta)))


def serve(order: Order, wire: socket.socket, device: str, processes: int) -> Done:
    """Do the job; returns the files left.

    Raises:
        CrewError: it cannot be done, and why.
    """
    started, began = datetime.now(UTC), time.monotonic()
    on_gpu = device.startswith("cuda") or (device == "auto" and order.job.device != "cpu" and torch.cuda.is_available())
    device = "cpu" if order.job.device == "cpu" else device
    size = 1 if on_gpu else processes
    tile = _TILE["cuda" if on_gpu else "cpu"]
    pace = Pace(wire)
    _end_with(wire)
    while True:
        crew = Crew(order, device, size)
        try:
            pace.phase("preflight")
            facts = crew.look(tile)
            shards, digest, resumed = _attack(crew, order, facts, tile, pace)
            break
        except CrewError as error:
            if not error.trouble.memory or tile <= _SMALLEST_TILE:
                raise
            tile //= 2
        finally:
            crew.dismiss()
    pace.phase("report", pace.total, pace.total)
    run = Run(order, facts, tile, size, resumed, started, began)
    return Done(files=assemble.write(run, shards, digest))


def _attack(crew: Crew, order: Order, facts: Facts, tile: int, pace: Pace) -> tuple[list[Path], str, int]:
    folder = Path(order.out) / "shards"
    folder.mkdir(exist_ok=True)
    cut = plan(order, facts.rows, tile)
    paths = [folder / f"{at:05d}.npz" for at in range(len(cut.shards))]
    missing = [at for at, path in enumerate(paths) if shard.load(path, cut.digest) is None]
    attacks = sum(len(order.job.against(threat)) for threat in order.job.threats)
    left = sum(len(cut.shards[at]) for at in missing)
    pace.phase("attack", facts.rows * attacks, (facts.rows - left) * attacks)
    tasks = [Attack(paths[at], cut.digest, cut.shards[at], tile, facts) for at in missing]
    for answer in crew.work(tasks):
        if isinstance(answer, Advanced):
            pace.advance("attack", answer.more)
    return paths, cut.digest, len(paths) - len(missing)


def _end_with(wire: socket.socket) -> None:
    """When the other end closes, nobody wants the result any more."""

    def watch() -> None:
        wire.settimeout(None)
        while wire.recv(1 << 10):
            pass
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """`python -P -m sparring.workers.runner --wire FD`."""
    parser = argparse.ArgumentParser(prog="sparring.workers.runner")
    parser.add_argument("--wire", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    wire = socket.socket(fileno=given.wire)
    lines = Lines(wire)
    first: list[bytes] = []
    while not first:
        first = list(lines.read(None))
        if lines.ended:
            sys.exit(0)
    order = Order.model_validate_json(first[0])
    try:
        send(wire, serve(order, wire, given.device, given.processes))
    except CrewError as error:
        send(wire, Failed(reason=error.trouble.reason))
    except OSError as error:
        code = "disk_full" if error.errno == 28 else "internal"
        send(
            wire,
            Failed(reason=Reason(code=code, message=f"The runner could not write its files: {error}", hint="Look at the data folder.")),
        )


if __name__ == "__main__":
    main()

"""The runner: a fresh interpreter that serves exactly one job. It holds no credentials and opens no socket.

What it asks of an endpoint it asks the horse, over the pipe.

It imports torch and readies the report ahead, waits for one order, forks its row processes, directs them shard by shard, and
writes the report.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import sparring
from sparring.contract.early import Early, Stopped
from sparring.contract.jobs import Craft
from sparring.contract.runner import ORDER, REPLY, Done, Failed, Order, Told, TrainingOrder
from sparring.contract.states import Learnt, Progress, Reason
from sparring.workers import assemble, corruptions, shard
from sparring.workers.asking import Desk
from sparring.workers.assemble import Run
from sparring.workers.bench import Facts, feasible
from sparring.workers.crew import Advanced, Attack, Crew, CrewError, Doubt, Learn, Saved, Trouble
from sparring.workers.early import Docket, blocks
from sparring.workers.errors import unexpected
from sparring.workers.retraining.direct import retrain
from sparring.workers.retraining.leave import leave
from sparring.workers.spare import ARITHMETIC
from sparring.workers.surrogates import curriculum, recall
from sparring.workers.trust import unit
from sparring.workers.trust.seen import Seen
from sparring.workers.warm import warm
from sparring.workers.wire import MAX_BODY, Lines, send

_TILE = {"cpu": 64, "cuda": 256}
_SMALLEST_TILE = 16
_ASKING = 4
"""Row processes of a job on an endpoint, at least: while one computes its next questions, those of others keep the connections busy."""
_SHARD = 1024
_SHARD_NUMBERS = 4 << 20
"""Numbers in the rows of a shard: an attack holds some twenty tensors of that size."""


def digest(order: Order, facts: Facts, tile: int) -> str:
    """Of all that a row's outcome depends on: shards that carry it belong together, whoever has computed them."""
    given = [order.job, order.model.spec, order.data.spec]
    found = [facts.device, facts.probabilities, facts.judge, facts.access, facts.training]
    found += sorted((name, other.info.sha256, other.info.spec.model_dump(mode="json")) for name, other in order.others.items())
    found += [(each.sha256, [threat.norm for threat in each.threats]) for each in order.earlier]
    machine = [*found, assemble.processor(), sparring.__version__, torch.__version__, sorted(ARITHMETIC.items())]
    text = json.dumps([*(each.model_dump(mode="json") for each in given), order.model.sha256, order.data.sha256, tile, *machine])
    return hashlib.sha256(text.encode()).hexdigest()


def _most(numbers: int, tile: int) -> int:
    """Rows of a shard at most."""
    return max(tile, min(_SHARD, _SHARD_NUMBERS // max(1, numbers)) // tile * tile)


def cut(rows: NDArray[np.int64], numbers: int, tile: int, granule: int, processes: int) -> list[NDArray[np.int64]]:
    """Rows as shards of whole passes: as few as keep all processes busy to the end, since the last passes of each are half empty.

    `numbers` are those in a row; a pass takes `tile` rows, or fewer in multiples of `granule`. Which rows share a shard changes no row's
    outcome.
    """
    most = _most(numbers, tile)
    count = -(-len(rows) // (most * processes)) * processes
    size = -(-len(rows) // max(1, count * granule)) * granule
    return [rows[at : at + size] for at in range(0, len(rows), size)] if size else []


def resolve(wanted: str, device: str) -> str:
    """The device of this job, from what it asked for and what the worker offers: `cpu` or `cuda:N`.

    Raises:
        CrewError: a GPU was asked for and there is none.
    """
    if wanted == "cpu" or device == "cpu" or not torch.cuda.is_available():
        if wanted == "gpu":
            hint = "Submit the job with device=auto or cpu, or start a worker on a machine with a GPU."
            raise CrewError(Trouble(Reason(code="unsupported", message="The job asks for a GPU and this worker has none.", hint=hint)))
        return "cpu"
    return "cuda:0" if device == "auto" else device


class Means(NamedTuple):
    """What a runner has to do its work with."""

    device: str
    processes: int
    desk: Desk
    pace: "Pace"


class Measured(NamedTuple):
    """A job that attacks, its shards done."""

    run: Run
    results: assemble.Results
    digest: str


class Pace:
    """Progress as it is told: counts, rate and time to go. At most a few times a second."""

    def __init__(self, wire: socket.socket) -> None:
        """Tell it on `wire`."""
        self._wire = wire
        self._began = self._told = time.monotonic()
        self._done = self._skipped = 0
        self.total = 0
        self.curves: dict[str, tuple[Learnt, ...]] = {}
        """Told with all that follows."""

    def phase(self, name: str, total: int = 0, done: int = 0) -> None:
        """Begin a phase of `total` row-attacks, `done` of them already there."""
        self._began, self._done, self.total, self._skipped = time.monotonic(), done, total, done
        self._tell(name)

    def advance(self, name: str, count: int, *, taken_over: bool = False) -> None:
        """So many more are done, or were already."""
        self._done += count
        self._skipped += count if taken_over else 0
        if time.monotonic() - self._told > 0.2 or self._done >= self.total:
            self._tell(name)

    def _tell(self, name: str) -> None:
        self._told = time.monotonic()
        fresh, spent = self._done - self._skipped, self._told - self._began
        rate = fresh / spent if spent > 0 else 0.0
        eta = (self.total - self._done) / rate if rate else None
        send(self._wire, Told(progress=Progress(phase=name, done=self._done, total=self.total, rate=rate, eta=eta, curves=self.curves)))


def serve(order: Order | TrainingOrder, wire: socket.socket, device: str, processes: int) -> Done:
    """Do the job; returns the files left.

    Raises:
        CrewError: it cannot be done, and why.
    """
    device = resolve(order.job.device, device)
    size = processes if device == "cpu" else 1
    if order.model.spec.endpoint:
        device, size = "cpu", max(_ASKING, processes)
    means = Means(device, size, Desk(wire), Pace(wire))
    _listen(wire, means.desk)
    if isinstance(order, TrainingOrder):
        return Done(files=leave(order, *retrain(order, means, measure)))
    found = measure(order, means)
    means.pace.phase("report", means.pace.total, means.pace.total)
    return Done(files=assemble.write(found.run, found.results, found.digest))


def measure(order: Order, means: Means, phase: str = "attack") -> Measured:
    """Attack every row of a job. Nothing may have been computed before.

    Raises:
        CrewError: it cannot be done, and why.
    """
    started, began = datetime.now(UTC), time.monotonic()
    tile = _TILE["cpu" if means.device == "cpu" else "cuda"]
    while True:
        crew = Crew(order, means.device, means.processes, means.desk)
        try:
            means.pace.phase("preflight")
            facts = crew.look(tile)
            fought = _attack(crew, order, facts, tile, means, phase)
            if fought.stopped:  # what was under way is not waited for
                crew.dismiss()
                crew = Crew(order, means.device, means.processes, means.desk)
            results = assemble.Results(fought.shards, assemble.Read(fought.digest))
            seen = _doubt(crew, order, facts, tile, means.pace, results, fought.digest)
            break
        except CrewError as error:
            if not error.trouble.memory or tile <= _SMALLEST_TILE:
                raise
            tile //= 2
        finally:
            crew.dismiss()
    desk = means.desk
    run = Run(order, facts, tile, means.processes, fought.resumed, started, began, desk.asked, desk.sent, seen, fought.stopped)
    return Measured(run, results, fought.digest)


class _Fought(NamedTuple):
    """The shards of all rows that count, those of an earlier attempt first."""

    shards: list[Path]
    digest: str
    """That they carry."""
    resumed: int
    """How many are an earlier attempt's."""
    stopped: Stopped | None = None


def _attack(crew: Crew, order: Order, facts: Facts, tile: int, means: Means, phase: str) -> _Fought:
    folder, pace = Path(order.out) / "shards", means.pace
    folder.mkdir(parents=True, exist_ok=True)
    sign = digest(order, facts, tile)
    drawn = np.random.Generator(np.random.PCG64(order.job.seed)).permutation(facts.rows).astype(np.int64)
    kept, free = _kept(folder, sign)
    left = drawn[~np.isin(drawn, np.concatenate([drawn[:0], *kept.values()]))]
    _study(crew, order, facts, tile, pace, folder, sign)
    attacks = sum(len(feasible(order.job, threat, facts)) for threat in order.job.threats)
    attacks += len(corruptions.chosen(order.job, facts.shape[1:], facts.spec))
    pace.phase(phase, facts.rows * attacks, (facts.rows - len(left)) * attacks)
    if order.job.kind == "evaluate" and isinstance(order.job.stop, Early):
        most = _most(math.prod(facts.shape[1:]), tile)
        plan = [Attack(folder / f"{at:05d}.npz", sign, rows, tile, facts) for at, rows in enumerate(blocks(drawn, tile, most))]
        return _until_answered(crew, plan, Docket(order.job.stop, facts.rows, len(plan), order.model.sha256), kept, pace, phase)
    shards = cut(left, math.prod(facts.shape[1:]), tile, facts.granule or tile, means.processes)
    tasks = [Attack(folder / f"{free + at:05d}.npz", sign, rows, tile, facts) for at, rows in enumerate(shards)]
    for answer in crew.work(tasks):
        if isinstance(answer, Advanced):
            pace.advance(phase, answer.more)
    return _Fought([*kept, *(task.path for task in tasks)], sign, len(kept))


def _until_answered(crew: Crew, plan: list[Attack], docket: Docket, kept: Collection[Path], pace: Pace, phase: str) -> _Fought:
    """Block after block until the docket is closed; what is under way then is left to die with the crew."""
    sign, place = plan[0].plan, {task.path: at for at, task in enumerate(plan)}

    def enter(path: Path) -> None:
        done = shard.load(path, sign)
        if done is None:
            raise OSError(f"shard {path.name} cannot be read back")
        docket.enter(place[path], done)

    for path in kept:
        enter(path)
    left = (task for task in plan if task.path not in kept)
    for answer in crew.work(itertools.takewhile(lambda task: not docket.closed, left)):
        if isinstance(answer, Advanced):
            pace.advance(phase, answer.more)
        elif isinstance(answer, Saved) and answer.path:
            enter(answer.path)
            if docket.closed:
                break
    counted = [task.path for task in plan[: docket.counted]]
    return _Fought(counted, sign, sum(path in kept for path in counted), docket.stopped())


def _kept(folder: Path, sign: str) -> tuple[dict[Path, NDArray[np.int64]], int]:
    """Shards that can be used, with their rows; and the first number under which no shard lies."""
    paths = sorted(folder.glob("[0-9]*.npz"))
    found = ((path, shard.load(path, sign)) for path in paths)
    return {path: each.rows for path, each in found if each is not None}, max((int(path.stem) + 1 for path in paths), default=0)


def _study(crew: Crew, order: Order, facts: Facts, tile: int, pace: Pace, folder: Path, digest: str) -> None:
    """Every lesson that the attacks want, before the first of them."""
    wanted = [each for each in curriculum(order.job, facts) if recall(folder, each, digest) is None]
    if not wanted:
        return
    pace.phase("train", sum(lesson.passes for lesson in wanted))
    for answer in crew.work([Learn(lesson, folder, digest, tile, facts) for lesson in wanted]):
        if isinstance(answer, Advanced):
            pace.advance("train", answer.more)


def _doubt(crew: Crew, order: Order, facts: Facts, tile: int, pace: Pace, results: assemble.Results, sign: str) -> Seen | None:
    """A few rows looked at again, to tell how far the numbers may be believed; None where there is no number."""
    if isinstance(order.job, Craft):
        return None
    if facts.access != "gradient":  # what is known by its answers alone shows no more, and to ask it again may cost money
        return unit.nothing(order.job)
    folder = Path(order.out) / "shards"
    units = unit.units(order.job, facts, results.rows, results.clean == results.labels, results.ended)
    paths = [folder / unit.name(given) for given in units]
    fresh = [(given, path) for given, path in zip(units, paths, strict=True) if unit.recall(path, sign) is None]
    attacks = pace.total
    pace.phase("checks", len(units), len(units) - len(fresh))
    for _ in crew.work([Doubt(path, sign, given, tile, facts) for given, path in fresh]):
        pace.advance("checks", 1)
    pace.total = attacks
    return unit.gather(paths, sign)


def _listen(wire: socket.socket, desk: Desk) -> None:
    """Hand over replies of the horse. When its end closes, nobody wants the result any more."""
    lines = Lines(wire, MAX_BODY)

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):  # an end that closes without having read everything
            while not lines.ended:
                for line in lines.read(None):
                    desk.reply(REPLY.validate_json(line))
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
    if not select.select([wire], [], [], 0)[0]:  # a cold start is not kept waiting
        warm()
    first: list[bytes] = []
    while not first:
        first = list(lines.read(None))
        if lines.ended:
            sys.exit(0)
    answer: Done | Failed
    try:
        answer = serve(ORDER.validate_json(first[0]), wire, given.device, given.processes)
    except CrewError as error:
        answer = Failed(reason=error.trouble.reason)
    except Exception as error:
        traceback.print_exc()
        answer = Failed(reason=unexpected(error))
    with contextlib.suppress(ConnectionError):  # nobody is left to be told
        send(wire, answer)


if __name__ == "__main__":
    main()

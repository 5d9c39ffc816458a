"""Row processes: forked before anything is computed, one thread each; they load, look and attack. The runner only directs.

On a GPU there is one of them.
"""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sparring.contract.jobs import Evaluate
from sparring.contract.runner import Ask, Order, TrainingOrder
from sparring.contract.states import Reason
from sparring.workers import shard
from sparring.workers.asking import Desk, Enquire, down
from sparring.workers.bench import Bench, Facts, open_bench, out_of_memory, pick
from sparring.workers.course import attack_shard
from sparring.workers.errors import Refused, unexpected
from sparring.workers.preflight import preflight
from sparring.workers.process import die_with_parent
from sparring.workers.retraining.coach import Train, Trained, coach
from sparring.workers.retraining.rows import Parted, part
from sparring.workers.surrogates import Lesson, School, study
from sparring.workers.trust import unit
from sparring.workers.trust.unit import Given


class Look(NamedTuple):
    """Task: preflight at this tile. Answered by Facts."""

    tile: int


class Attack(NamedTuple):
    """Task: one shard, to be saved at `path`. Answered by Row-attacks done on the way, and Saved."""

    path: Path
    plan: str
    rows: NDArray[np.int64]
    tile: int
    facts: Facts


class Learn(NamedTuple):
    """Task: a lesson, to be kept in `folder`. Answered by Advanced, one for each of its passes, and Saved."""

    lesson: Lesson
    folder: Path
    plan: str
    tile: int
    facts: Facts


class Doubt(NamedTuple):
    """Task: look at a few rows again, to be kept at `path`. Answered by Saved."""

    path: Path
    plan: str
    given: Given
    tile: int
    facts: Facts


class Part(NamedTuple):
    """Task: look over the data of a job that trains, and write its test rows to `path` unless they are a dataset. Answered by Parted."""

    order: TrainingOrder
    path: Path


class Advanced(NamedTuple):
    """So many more row-attacks, or passes over training rows, are done."""

    more: int


class Saved(NamedTuple):
    """What was asked for is on disk; a shard at this path."""

    path: Path | None = None


class Trouble(NamedTuple):
    """A task could not be done."""

    reason: Reason
    memory: bool = False
    """Memory ran out: a smaller tile may do."""


class CrewError(Exception):
    """A row process reported trouble, or died."""

    def __init__(self, trouble: Trouble) -> None:
        """Carry the trouble."""
        super().__init__(trouble.reason.message)
        self.trouble = trouble


Task = Look | Learn | Attack | Doubt | Part | Train
Answer = Facts | Advanced | Saved | Parted | Trained


class _Member:
    """What runs inside a row process."""

    def __init__(self, order: Order | None, device: str, enquire: Enquire) -> None:
        self.order, self.wanted, self.enquire = order, device, enquire
        self.bench: Bench | None = None
        self.tile = 0

    def do(self, task: Task, tell: Callable[[Any], None]) -> Facts | Saved | Parted:
        device = pick(self.wanted)
        if isinstance(task, Part):
            return part(task.order, task.path)
        if isinstance(task, Train):
            coach(task, device, tell)
            return Saved()
        assert self.order is not None, "only tasks of training bring their own"
        if isinstance(task, Look):
            facts, self.bench = preflight(self.order, device, task.tile, self.enquire)
            self.tile, self.bench.seal = task.tile, self.bench.fingerprint()
            return facts
        if self.bench is None or self.tile != task.tile:
            self.bench, self.tile = open_bench(self.order, device, task.tile, task.facts, self.enquire), task.tile
            self.bench.seal = self.bench.fingerprint()
        if isinstance(task, Doubt):
            assert isinstance(self.order.job, Evaluate), "only evaluations are checked"
            torch.manual_seed(self.order.job.seed)
            unit.save(task.path, task.plan, unit.look(self.order.job, self.bench, task.given))
            return Saved()
        if isinstance(task, Learn):
            study(self.order, self.bench, task.facts, task.lesson, task.folder, task.plan, lambda more: tell(Advanced(more)))
            return Saved()
        if self.bench.school is None:
            self.bench.school = School(self.order, self.bench, task.facts.classes, task.path.parent)
        torch.manual_seed(self.order.job.seed + int(task.rows[0]))  # for models that draw: at least the same each time
        done = attack_shard(self.order.job, self.bench, task.rows, lambda more: tell(Advanced(more)))
        intact = self.bench.fingerprint() == self.bench.seal
        shard.save(task.path, done._replace(intact=intact), task.plan)
        return Saved(task.path)


def _live(order: Order | None, device: str, wire: Connection, parent: int) -> None:
    die_with_parent(parent)
    torch.set_num_threads(1)
    member = _Member(order, device, down(wire))
    while True:
        task = wire.recv()
        try:
            wire.send(member.do(task, wire.send))
        except Refused as refused:
            wire.send(Trouble(refused.reason))
        except Exception as error:
            wire.send(_trouble(error))


def _trouble(error: Exception) -> Trouble:
    if out_of_memory(error):
        hint = "Use a machine or GPU with more memory, or a smaller model."
        return Trouble(Reason(code="out_of_memory", message="Memory ran out during the attack.", hint=hint), memory=True)
    traceback.print_exc()
    return Trouble(unexpected(error))


class Crew:
    """The row processes, seen from the runner."""

    def __init__(self, order: Order | None, device: str, size: int, desk: Desk) -> None:
        """Fork them; nothing may have been computed before. What they ask of an endpoint goes over the desk.

        Without an order they can be given tasks of training alone.
        """
        self._desk = desk
        context = multiprocessing.get_context("fork")
        self._members: list[tuple[BaseProcess, Connection]] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_live, args=(order, device, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def look(self, tile: int) -> Facts:
        """Preflight, in the first process."""
        (facts,) = [answer for answer in self.work([Look(tile)]) if isinstance(answer, Facts)]
        return facts

    def work(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """Give every process a task whenever it is free; yields the answers as they come. Tasks are taken one by one.

        Raises:
            CrewError: a task met trouble, or a process died.
        """
        waiting = iter(tasks)
        busy: dict[Connection, BaseProcess] = {}
        for (process, wire), task in zip(self._members, waiting, strict=False):
            wire.send(task)
            busy[wire] = process
        while busy:
            for wire in [each for each in wait(list(busy)) if isinstance(each, Connection)]:
                try:
                    answer = wire.recv()
                except (EOFError, ConnectionError):
                    raise CrewError(_died(busy[wire])) from None
                if isinstance(answer, Trouble):
                    raise CrewError(answer)
                if isinstance(answer, Ask):
                    self._desk.ask(answer, wire)
                    continue
                yield answer
                if isinstance(answer, (Advanced, Trained)):
                    continue
                following = next(waiting, None)
                if following is not None:
                    wire.send(following)
                else:
                    del busy[wire]

    def dismiss(self) -> None:
        """End every process, at once."""
        for process, _ in self._members:
            process.kill()
            process.join()
        self._desk.forget()
        for _, wire in self._members:
            wire.close()


def _died(process: BaseProcess) -> Trouble:
    process.join(5)
    if process.exitcode == -9:
        message = "A row process was killed by the system, most likely because memory ran out."
        hint = "Use a machine with more memory, or fewer processes."
        return Trouble(Reason(code="out_of_memory", message=message, hint=hint), memory=True)
    message = f"A row process died with exit code {process.exitcode}."
    hint = "The model may crash the runtime; look at the worker's log."
    return Trouble(Reason(code="worker_lost", message=message, hint=hint))

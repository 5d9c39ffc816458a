"""How fast are we, side by side with the peers? `make bench`, or `python peers.py --help`.

Each tool attacks the same rows of the same model in a process of its own. All tools of a round run one after the other, in an
order that changes with the round, so that what else the machine does hits all of them. The floor, the passes alone, is timed in
every round too. What a tool returns is judged here, by the original model. Timed is the attack alone: no imports, no loading.
"""

import argparse
import json
import os
import platform
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

import launch
import numpy as np
import torch
from judge import judge
from models import SUBJECTS, ready
from numpy.typing import NDArray
from table import Record, report
from tools.task import Task
from workloads import FLOORS, OURS, TOOLS, WORKLOADS, plan, rows_of

RESULTS = Path(__file__).parent / "results"


class Seat(NamedTuple):
    """A subject under a workload: where tools are compared."""

    subject: str
    workload: str
    rows: int


@dataclass
class Run:
    """What has been measured so far."""

    records: list[Record] = field(default_factory=list)
    robust: dict[tuple[Seat, str, int], NDArray[np.bool_]] = field(default_factory=dict)
    """Rows that hold, by seat, tool and seed; of the last round."""
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Runnable processes when it began: what else the machine was doing."""


def measure(seat: Seat, seed: int, round: int, tools: list[str], given: argparse.Namespace, run: Run) -> Iterator[Record]:
    """One round: the floors, then every tool once."""
    place = ready(seat.subject)
    task = launch.task(seat.subject, seat.workload, place, seat.rows, seed)
    floors = [_floor(tool, task) for tool in FLOORS]
    random.Random(f"{seed} {round}").shuffle(tools)
    model, (x, y) = task.model(), task.inputs()
    for tool in tools:
        if f"{tool} {seat.workload}" in run.skipped:
            continue
        answer = launch.run(tool, task, given.peers, given.same_allocator)
        if answer.x is None:
            run.skipped[f"{tool} {seat.workload}"] = str(answer.timing["skipped"])
            print(f"!!! SKIPPED {tool} on {seat.workload}: {answer.timing['skipped']}", flush=True)
            continue
        verdict = judge(model, x, y, answer.x, task.eps, task.norm)
        attack_s = answer.timing.get("attack_s")
        run.robust[seat, tool, seed] = verdict.robust
        run.versions[tool] = str(answer.timing["version"])
        yield Record(
            model=seat.subject,
            workload=seat.workload,
            tool=tool,
            seed=seed,
            round=round,
            wall_s=float(answer.timing["wall_s"]),
            cpu_s=float(answer.timing["cpu_s"]),
            floor_cpu_s=floors[0],
            robust=int(verdict.robust.sum()),
            total=len(y),
            floor_default_cpu_s=floors[1],
            attack_s=None if attack_s is None else float(attack_s),
            outside=verdict.outside,
            borderline=verdict.borderline,
            median=verdict.median if task.norm == "l2" else None,
        )


def _floor(tool: str, task: Task) -> float:
    timing = launch.run(tool, task, Path(sys.executable)).timing
    if "skipped" in timing:
        raise SystemExit(f"The floor was not measured: {timing['skipped']}")
    return float(timing["cpu_s"])


def everything(given: argparse.Namespace) -> Run:
    """All rounds. Results are written after each tool, so that an interrupted run leaves what it has."""
    run = Run()
    seats = [Seat(subject, name, rows_of(name, subject, given.rows)) for subject, name in plan(given.workloads, given.models)]
    for subject in dict.fromkeys(seat.subject for seat in seats):
        ready(subject)
    RESULTS.mkdir(exist_ok=True)
    for round in range(given.rounds):
        for seed in range(given.seeds):
            for seat in seats:
                tools = [tool for tool in (*OURS, *WORKLOADS[seat.workload].peers) if tool in given.tools]
                for record in measure(seat, seed, round, tools, given, run):
                    run.records.append(record)
                    print(_line(record), flush=True)
                    (RESULTS / "peers.json").write_text(json.dumps([each._asdict() for each in run.records], indent=1))
    return run


def _line(record: Record) -> str:
    return (
        f"round {record.round} seed {record.seed} {record.model:9} {record.workload:14} {record.tool:13}"
        f" cpu {record.cpu_s:8.2f} s  wall {record.wall_s:8.2f} s  {record.cpu_s / record.floor_cpu_s:6.2f} x floor"
        f"  holds {record.robust}/{record.total}{'' if record.median is None else f'  median distance {record.median:.4f}'}"
    )


def tell(run: Run, given: argparse.Namespace, file: TextIO) -> None:
    """The tables, and what they were measured with."""
    print(f"{platform.platform()}, {torch.get_num_threads()} threads; {', '.join(sorted(set(run.versions.values())))}", file=file)
    print(f"peers run with {'our' if given.same_allocator else 'their default'} allocator settings", file=file)
    print(f"load average {run.load:.1f} before, {os.getloadavg()[1]:.1f} in the last minutes, of which ours is about 2", file=file)
    for subject in dict.fromkeys(record.model for record in run.records):
        print(f"{subject}: {SUBJECTS[subject].about}, linf eps {SUBJECTS[subject].eps:.4g}", file=file)
    sets = {(seat.subject, seat.workload, tool, seed): rows for (seat, tool, seed), rows in run.robust.items()}
    report(run.records, sets, file)
    for what, why in run.skipped.items():
        print(f"!!! SKIPPED {what}: {why}", file=file)


def _names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure Sparring side by side with its peers.")
    parser.add_argument("--workloads", type=_names, help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--models", type=_names, help=f"some of {','.join(SUBJECTS)}")
    parser.add_argument("--tools", type=_names, default=list(TOOLS), help=f"some of {','.join(TOOLS)}")
    parser.add_argument("--rows", type=int, help="attack so many rows, whatever the workload")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--rounds", type=int, default=1, help="times each seed is measured")
    parser.add_argument("--quick", action="store_true", help="about a minute: PGD on one model, one seed, one round")
    parser.add_argument("--same-allocator", action="store_true", help="give the peers our allocator settings too")
    parser.add_argument("--peers", type=Path, default=Path(__file__).parents[1] / ".venv-peers/bin/python", help="their interpreter")
    given = parser.parse_args()
    for named, known in ((given.workloads, WORKLOADS), (given.models, SUBJECTS), (given.tools, TOOLS)):
        if unknown := set(named or ()) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if not given.peers.exists():
        parser.error(f"{given.peers} is missing: `make bench` sets it up")
    if given.quick:
        given.workloads, given.models = given.workloads or ["pgd20-verdict"], given.models or ["fashion"]
        given.seeds, given.rounds, given.rows = 1, 1, given.rows or 256
    run = everything(given)
    with (RESULTS / "peers.txt").open("w") as file:
        tell(run, given, file)
    print((RESULTS / "peers.txt").read_text())


if __name__ == "__main__":
    main()

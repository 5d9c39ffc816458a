"""From single measurements to tables: medians with their range, and ratios taken within a round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray


class Record(NamedTuple):
    """One tool, once."""

    model: str
    workload: str
    tool: str
    seed: int
    round: int
    wall_s: float
    cpu_s: float
    floor_cpu_s: float
    """The passes alone in the same round, with our allocator settings."""
    robust: int
    """Rows that hold, by the benchmark's own judge."""
    total: int
    floor_default_cpu_s: float
    """The passes alone, with the C library's own allocator settings."""
    attack_s: float | None
    """Ours: CPU seconds in attacks as the report tells them."""
    outside: int
    """Rows returned outside the ball or the box."""
    borderline: int
    """Rows whose verdict would be another in float64."""
    median: float | None = None
    """Distance, where an attack looks for the smallest."""


Sets = Mapping[tuple[str, str, str, int], NDArray[np.bool_]]
"""Rows that hold, by model, workload, tool and seed."""


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median [min, max]`."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def ratios(above: Sequence[Record], below: Sequence[Record], of: Callable[[Record], float]) -> list[float]:
    """`of(above) / of(below)` wherever both were measured in the same round with the same seed."""
    own = {(record.seed, record.round): of(record) for record in below}
    return [of(record) / own[record.seed, record.round] for record in above if (record.seed, record.round) in own]


def report(records: Sequence[Record], sets: Sets, file: TextIO) -> None:
    """One table for each model and workload."""
    for model, workload in dict.fromkeys((record.model, record.workload) for record in records):
        own = [record for record in records if (record.model, record.workload) == (model, workload)]
        tools = {tool: [record for record in own if record.tool == tool] for tool in sorted({record.tool for record in own})}
        print(f"\n{model}, {workload}: {own[0].total} rows, {len({(r.seed, r.round) for r in own})} rounds", file=file)
        floor, default = ([getattr(record, name) for record in own] for name in ("floor_cpu_s", "floor_default_cpu_s"))
        print(f"  floor: cpu {spread(floor)} s; with the default allocator {spread(default)} s", file=file)
        _costs(tools, file)
        _against(tools, file)
        _differences(model, workload, tools, sets, file)


def _costs(tools: Mapping[str, Sequence[Record]], file: TextIO) -> None:
    print(f"  {'tool':13} {'cpu s':>22} {'wall s':>22} {'cpu, x floor':>20} {'cpu, x default floor':>20}  {'holds, %':>20}", file=file)
    for tool, records in tools.items():
        holds = spread([100 * record.robust / record.total for record in records], 1)
        floor = spread([record.cpu_s / record.floor_cpu_s for record in records])
        default = spread([record.cpu_s / record.floor_default_cpu_s for record in records])
        cpu, wall = (spread([getattr(record, name) for record in records]) for name in ("cpu_s", "wall_s"))
        notes = [f"{max(getattr(record, name) for record in records)} {name}" for name in ("outside", "borderline")]
        if medians := [record.median for record in records if record.median is not None]:
            notes.append(f"median distance {spread(medians, 4)}")
        shown = [note for note in notes if not note.startswith("0 ")]
        print(f"  {tool:13} {cpu:>22} {wall:>22} {floor:>20} {default:>20}  {holds:>20}  {'; '.join(shown)}".rstrip(), file=file)


def _against(tools: Mapping[str, Sequence[Record]], file: TextIO) -> None:
    """What a peer needs, as a multiple of what ours needs."""
    for ours in (tool for tool in tools if tool.startswith("ours")):
        for peer in (tool for tool in tools if not tool.startswith("ours")):
            cpu = ratios(tools[peer], tools[ours], lambda record: record.cpu_s)
            wall = ratios(tools[peer], tools[ours], lambda record: record.wall_s)
            if cpu:
                print(f"  {peer} / {ours}: cpu {spread(cpu)}, wall {spread(wall)}", file=file)


def _differences(model: str, workload: str, tools: Mapping[str, Sequence[Record]], sets: Sets, file: TextIO) -> None:
    """Rows that only one of two tools broke, over all seeds."""
    for tool in tools:
        pairs = [
            (mine, theirs)
            for (*place, seed), mine in sets.items()
            if place == [model, workload, "ours-exact"] and (theirs := sets.get((model, workload, tool, seed))) is not None
        ]
        if tool != "ours-exact" and pairs:
            only_ours, only_theirs = (sum(int((a & ~b).sum()) for a, b in each) for each in ([(t, m) for m, t in pairs], pairs))
            rows = sum(len(mine) for mine, _ in pairs)
            print(f"  of {rows} rows only ours-exact broke {only_ours}, only {tool} {only_theirs}", file=file)

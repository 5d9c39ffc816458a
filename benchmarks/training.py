"""What an epoch of each defense costs: CPU seconds as multiples of a plain epoch, beside a straightforward loop and ART's trainer.

`python benchmarks/training.py --network small --rows 2000 --rounds 3`. Every contestant is a process of its own with one thread, run
once in each round; ours has the settings that the service gives its runners, the others those of their users. The loop by hand is timed
with our allocator settings as well. Each figure is `median [min, max]` over the rounds.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from launch import environment_of, last_words
from table import spread
from tools.epoch import EPS, NETWORKS

from sparring.contract.defenses import (
    LDS,
    MART,
    TRADES,
    VAT,
    YOPO,
    AnyDefense,
    Dropout,
    FastTraining,
    FGSMTraining,
    FreeLB,
    FreeTraining,
    GradientPenalty,
    Noise,
    PGDTraining,
    Plain,
    WeightPenalty,
)
from sparring.workers.spare import environment

HERE = Path(__file__).parent
STEPS = 7
SPECS: tuple[AnyDefense, ...] = (
    *(Plain(), Noise(), Dropout(), WeightPenalty(), GradientPenalty(), LDS(), VAT()),
    *(FGSMTraining(eps=EPS), FastTraining(eps=EPS), FreeTraining(eps=EPS), YOPO(eps=EPS), FreeLB(eps=EPS, norm="linf")),
    *(PGDTraining(eps=EPS), PGDTraining(eps=EPS, inner="folded"), TRADES(eps=EPS), MART(eps=EPS)),
)


class Contestant(NamedTuple):
    """Who trains, where."""

    label: str
    name: str
    """What `tools.epoch` calls it."""
    python: str
    environment: dict[str, str]

    def epoch(self, network: str, rows: int) -> float | str:
        """CPU seconds; or why there are none."""
        command = [self.python, "-m", "tools.epoch", network, self.name, str(rows)]
        done = subprocess.run(command, cwd=HERE, env=self.environment, capture_output=True, text=True)
        return last_words(done) if done.returncode else float(done.stdout.split()[-1])


def contestants(peers: Path) -> Iterator[Contestant]:
    """The plain loop first, which all are multiples of."""
    theirs, allocator, ours = environment_of(allocator=False), environment_of(allocator=True), os.environ | environment()
    yield Contestant("plain, by hand", "by-hand:0", sys.executable, theirs)
    yield Contestant("plain, by hand, our allocator settings", "by-hand:0", sys.executable, allocator)
    yield Contestant(f"PGD-{STEPS}, by hand", f"by-hand:{STEPS}", sys.executable, theirs)
    yield Contestant(f"PGD-{STEPS}, by hand, our allocator settings", f"by-hand:{STEPS}", sys.executable, allocator)
    if peers.exists():
        yield Contestant(f"PGD-{STEPS}, ART", f"art:{STEPS}", str(peers), theirs)
    else:
        print(f"!!! SKIPPED: ART: {peers} is not there", file=sys.stderr, flush=True)
    for spec in SPECS:
        name = f"{spec.kind}, folded" if getattr(spec, "inner", "") == "folded" else spec.kind
        yield Contestant(f"{name} ({spec.gradients} gradients)", spec.model_dump_json(), sys.executable, ours)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers/bin/python", help="the interpreter of ART's environment")
    parser.add_argument("--only", default="", help="contestants whose label begins so, and the plain loop")
    given = parser.parse_args()
    running = [each for at, each in enumerate(contestants(given.peers)) if not at or each.label.startswith(tuple(given.only.split(";")))]
    spent: dict[str, list[float]] = {each.label: [] for each in running}
    for _ in range(given.rounds):
        for each in running:
            told = each.epoch(given.network, given.rows)
            if isinstance(told, str):
                print(f"!!! SKIPPED: {each.label}: {told}", file=sys.stderr, flush=True)
            else:
                spent[each.label].append(told)
    plain = spent[running[0].label]
    if len(plain) < given.rounds:
        raise SystemExit("the plain loop, which all are multiples of, did not run in every round")
    print("| epoch of | CPU seconds as multiples of the plain loop |\n|---|---|")
    for label, seconds in spent.items():
        if len(seconds) == len(plain):
            ratios = [own / base for own, base in zip(seconds, plain, strict=True)]
            print(f"| {label} | {spread(ratios)} |", flush=True)


if __name__ == "__main__":
    main()

"""Are we as strong as the peers? `make peers`. On the same model, rows, eps and steps ours may leave at most 0.5 % more rows unbroken.

Judged by the benchmark itself, like everything the tools return. Starts are random: rows of all seeds are counted together.
Ends with exit code 1 where ours is weaker, or was not tried.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import NamedTuple

import launch
from judge import Verdict, judge
from models import ready
from workloads import WORKLOADS

ALLOWED = 0.005


class Case(NamedTuple):
    """What is compared."""

    subject: str
    workload: str
    rows: int
    seeds: int


CASES = (
    Case("digits", "pgd20-verdict", 360, 5),
    Case("digits", "apgd100", 360, 5),
    Case("digits", "square-5000", 360, 1),
    Case("digits", "standard", 360, 1),
    Case("fashion", "pgd20-verdict", 512, 2),
    Case("fashion", "apgd100", 256, 2),
    Case("fashion", "square-5000", 64, 1),
    Case("fashion", "standard", 64, 1),
    Case("mnist", "pgd20-verdict", 512, 2),
    Case("mnist", "apgd100", 256, 2),
    Case("mnist", "standard", 32, 1),
)


class Comparison(NamedTuple):
    """Ours beside one peer; rows are counted once for each seed."""

    case: Case
    peer: str
    rows: int
    ours: int
    """Rows that hold."""
    theirs: int
    only_ours: int
    """Rows only we broke."""
    only_theirs: int

    @property
    def weaker(self) -> bool:
        return self.ours > self.theirs + ALLOWED * self.rows

    def __str__(self) -> str:
        share = "  ".join(f"{100 * count / self.rows:6.2f} %" for count in (self.ours, self.theirs))
        counts = f"{self.rows:5}  {share}  {self.only_ours:9}  {self.only_theirs:9}"
        return f"{self.case.subject:9} {self.case.workload:14} {self.peer:13} {counts}  {'WEAKER' if self.weaker else 'ok'}"


_HEAD = f"{'model':9} {'workload':14} {'peer':13} {'rows':>5}  {'ours':>8}  {'peer':>8}  {'only ours':>9}  {'only peer':>9}"


class Missing(Exception):
    """A tool did not run."""


def compare(case: Case, peer: str, peers: Path) -> Comparison:
    """Ours beside one peer. Raises Missing where one of them did not run."""
    pairs = [[_verdict(case, tool, seed, peers).robust for tool in ("ours-exact", peer)] for seed in range(case.seeds)]
    ours, theirs = (sum(int(pair[at].sum()) for pair in pairs) for at in (0, 1))
    only_ours, only_theirs = (sum(int((a & ~b).sum()) for a, b in each) for each in ([(t, m) for m, t in pairs], pairs))
    return Comparison(case, peer, sum(len(mine) for mine, _ in pairs), ours, theirs, only_ours, only_theirs)


@functools.cache
def _verdict(case: Case, tool: str, seed: int, peers: Path) -> Verdict:
    task = launch.task(case.subject, case.workload, ready(case.subject), case.rows, seed)
    answer = launch.run(tool, task, peers)
    if answer.x is None:
        raise Missing(f"!!! {tool} did not run {case.workload} on {case.subject}: {answer.timing['skipped']}")
    return judge(task.model(), *task.inputs(), answer.x, task.eps, task.norm)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the accuracy that attacks leave with the peers'.")
    parser.add_argument("--models", type=_names, help="some of digits,fashion,mnist")
    parser.add_argument("--workloads", type=_names, help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--rows", type=int, help="at most so many rows")
    parser.add_argument("--seeds", type=int, help="at most so many seeds")
    parser.add_argument("--peers", type=Path, default=Path(__file__).parents[1] / ".venv-peers/bin/python", help="their interpreter")
    given = parser.parse_args()
    print(_HEAD)
    sound = True
    for case in CASES:
        if case.subject not in (given.models or [case.subject]) or case.workload not in (given.workloads or [case.workload]):
            continue
        less = case._replace(rows=min(case.rows, given.rows or case.rows), seeds=min(case.seeds, given.seeds or case.seeds))
        for peer in WORKLOADS[case.workload].peers:
            try:
                found = compare(less, peer, given.peers)
                sound &= not found.weaker
                print(found, flush=True)
            except Missing as missing:
                sound = False
                print(missing, flush=True)
    sys.exit(not sound)


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()

"""How many rows `stop: early` takes until a rule is decided, and how much time that saves.

`make early` prints two tables: rows drawn by chance, at margins of 2, 5 and 10 points between a rate and the limit of its rule; and a gate
on all 1,797 rows of scikit-learn's digits, in full and early, on a stack of its own.
"""

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from sparring import local
from sparring.contract.betting import bet
from sparring.contract.early import ALPHA
from sparring.contract.report import Report, Score
from sparring.contract.verdict import Baselines, Verdict
from sparring.gate.policy import read
from sparring.gate.run import Wanted, decide

ROWS = 10_000
MARGINS = (0.02, 0.05, 0.10)
RATES = (0.5, 0.9)
MODEL = Path(__file__).parents[1] / "examples/ci/models/robust.safetensors"
POLICY = """\
version: 1
model: {{path: {model}, arch: mlp}}
data: {{path: data.npz, bounds: [0, 1]}}
evaluate: {{attacks: [{{kind: apgd, steps: 100, restarts: 2}}], stop: {stop}}}
threats:
  near: {{norm: linf, eps: 0.05}}
rules:
  - {{id: robust, metric: robust, threat: near, min: {least}}}
"""


class Drawn(NamedTuple):
    """Many runs at one margin."""

    rate: float
    margin: float
    rows: list[int]
    """After which each was decided; ROWS where it was not."""
    early: int
    """Runs that hold by the rows they took."""
    full: int
    """Runs that hold by Wilson's interval on all rows."""


def drawn(rate: float, margin: float, runs: int, seed: int) -> Drawn:
    """A rule whose limit lies `margin` below the rate of the population."""
    chance, limit = random.Random(f"{rate} {margin} {seed}"), rate - margin
    rows, early, full = [], 0, 0
    for _ in range(runs):
        right = [float(chance.random() < rate) for _ in range(ROWS)]
        found = bet(right, limit, ALPHA)
        rows.append(found.at or ROWS)
        early += found.word == "holds"
        full += Score(count=int(sum(right)), total=ROWS).interval[0] >= limit
    return Drawn(rate, margin, rows, early, full)


def table(every: list[Drawn], runs: int) -> Iterator[str]:
    """Markdown."""
    yield "| rate | limit | margin | rows, median | rows, 90 % of runs | rows saved, mean | decided early | holds in full |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|"
    for each in every:
        ninth = sorted(each.rows)[int(0.9 * runs)]
        saved = 1 - statistics.mean(each.rows) / ROWS
        yield (
            f"| {each.rate:.0%} | {each.rate - each.margin:.0%} | {100 * each.margin:g} points | {statistics.median(each.rows):,.0f} "
            f"| {ninth:,} | {saved:.0%} | {each.early / runs:.0%} | {each.full / runs:.0%} |"
        )


def gated(folder: Path, stop: str, least: float) -> tuple[Verdict, Report]:
    """One gate on the digits."""
    (folder / "gate.yaml").write_text(POLICY.format(model=MODEL, stop=stop, least=least))
    verdict = decide(Wanted(read(folder / "gate.yaml"), keep=False), Baselines())
    with local.service() as client:
        return verdict, client.jobs.report(verdict.job)


def real() -> Iterator[str]:
    """Markdown: the same rule at three margins, in full and early."""
    images, labels = load_digits(return_X_y=True)
    with tempfile.TemporaryDirectory(prefix="sparring-early-") as name, local.service():
        folder = Path(name)
        np.savez(folder / "data.npz", x=(images / 16).astype(np.float32), y=labels.astype(np.int64))
        _, whole = gated(folder, "full", 0.5)
        rate = whole.threats[0].worst.rate
        yield f"| limit below {rate:.1%} by | verdict | rows | decided after | seconds | in full |"
        yield "|---:|---|---:|---:|---:|---:|"
        for margin in reversed(MARGINS):
            verdict, report = gated(folder, "early", round(rate - margin, 3))
            assert report.stopped
            yield (
                f"| {100 * margin:g} points | {verdict.rules[0].status} | {report.stopped.rows:,} of {report.stopped.of:,} "
                f"| {report.stopped.answers[0].at or '–'} | {report.cost.wall_seconds:.1f} | {whole.cost.wall_seconds:.1f} |"
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawn", action="store_true", help="the first table alone")
    given = parser.parse_args()
    every = [drawn(rate, margin, given.runs, given.seed) for rate in RATES for margin in MARGINS]
    print("\n".join(table(every, given.runs)), flush=True)
    if not given.drawn:
        print()
        for line in real():
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""How much time does the service itself add to an attack? `make bench`, or on a running stack with SPARRING_URL and SPARRING_KEY.

Jobs are submitted over HTTP one after the other, each followed by its events until its report is fetched. Each is small enough
to be one shard, so one process attacks; what is left of the wall clock without the seconds in attacks is the service's. It is measured
twice: with a pause before each job, in which the worker's next runner gets ready, and without one.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from sparring import Client
from sparring.contract.jobs import Evaluate
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.threat import Threat
from sparring.local import started

ROWS, FEATURES, CLASSES = 64, 32, 10


class Timing(NamedTuple):
    """Seconds of one job."""

    total: float
    """From the submission to the report."""
    attacks: float
    waiting: float
    """From being accepted to being taken by a worker."""

    @property
    def overhead(self) -> float:
        return self.total - self.attacks


@contextmanager
def stack(folder: Path) -> Iterator[Client]:
    """The running stack of the environment, or one of our own for as long as the block lasts."""
    if os.environ.get("SPARRING_URL"):
        with Client() as client:
            yield client
        return
    with started(folder) as (running, _), Client(running.url, running.key) as client:
        yield client


def upload(client: Client, folder: Path) -> Evaluate:
    """A linear model and data it knows, as a job. What is measured does not depend on the numbers."""
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    x = draw.random((ROWS, FEATURES), dtype=np.float32)
    save_file({"fc.weight": weight, "fc.bias": np.zeros(CLASSES, np.float32)}, folder / "linear.safetensors")
    np.savez(folder / "rows.npz", x=x, y=(x @ weight.T).argmax(1))
    model = client.models.upload(folder / "linear.safetensors", spec=ModelSpec(arch="mlp"))
    data = client.datasets.upload(folder / "rows.npz", spec=DataSpec(bounds=(0.0, 1.0)))
    return Evaluate(model=model.id, data=data.id, threats=(Threat(norm="linf", eps=0.02),), suite="quick")


def timed(client: Client, job: Evaluate) -> Timing:
    """One job, from its submission to its report."""
    began = time.perf_counter()
    id = client.jobs.submit(job).id
    ended = client.jobs.wait(id)
    report = client.jobs.report(id)
    total = time.perf_counter() - began
    waiting = (ended.started - ended.created).total_seconds() if ended.started else float("nan")
    return Timing(total, report.cost.attack_seconds, waiting)


def summary(seconds: list[float]) -> str:
    """`median [min, max]`, in milliseconds."""
    low, middle, high = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{middle:7.0f} [{low:.0f}, {high:.0f}] ms"


def told(timings: list[Timing], how: str) -> None:
    """Print where the time went."""
    print(f"{len(timings)} jobs of {ROWS} rows, {how}: median [min, max]")
    print("submitted to report ", summary([timing.total for timing in timings]))
    print("  in attacks        ", summary([timing.attacks for timing in timings]))
    print("  the service's own ", summary([timing.overhead for timing in timings]))
    print("    waiting         ", summary([timing.waiting for timing in timings]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the service's own overhead.")
    parser.add_argument("--jobs", type=int, default=10, help="jobs that count; one more goes before them")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds in which the next runner gets ready")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stack(Path(name) / "data") as client:
        job = upload(client, Path(name))
        timed(client, job)
        for pause, how in ((given.pause, f"each {given.pause:g} s after the one before"), (0, "one right after the other")):
            timings = []
            for seed in range(1, given.jobs + 1):
                time.sleep(pause)
                timings.append(timed(client, job.model_copy(update={"seed": seed + (1000 if pause else 0)})))
            told(timings, how)


if __name__ == "__main__":
    main()

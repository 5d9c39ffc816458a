"""How much time does the service itself add to an attack? `make bench`, or on a running stack with SPARRING_URL and SPARRING_KEY.

Jobs are submitted over HTTP one after the other, each followed by its events until its report is fetched. Each is small enough
to be one shard, so one process attacks; what is left of the wall clock without the seconds in attacks is the service's.
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the service's own overhead.")
    parser.add_argument("--jobs", type=int, default=10, help="jobs that count; one more goes before them")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name, stack(Path(name) / "data") as client:
        job = upload(client, Path(name))
        timed(client, job)
        timings = [timed(client, job.model_copy(update={"seed": seed})) for seed in range(1, jobs + 1)]
    print(f"{jobs} jobs of {ROWS} rows, one after the other: median [min, max]")
    print("submitted to report ", summary([timing.total for timing in timings]))
    print("  in attacks        ", summary([timing.attacks for timing in timings]))
    print("  the service's own ", summary([timing.overhead for timing in timings]))
    print("    waiting         ", summary([timing.waiting for timing in timings]))


if __name__ == "__main__":
    main()

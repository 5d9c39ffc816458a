"""One shard: some rows, through every threat and attack of the job, judged, and written down as the checkpoint."""

import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparring.attacks import catalogue, random
from sparring.attacks.norms import ball
from sparring.attacks.problem import Goal, Outcome, Problem
from sparring.contract.attacks import AttackSpec, names
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.threat import Threat
from sparring.workers.bench import Bench

CLEAN, UNBROKEN = -2, -1
"""`broken_by` of a row that was wrong from the start, and of one nothing broke; else the attack's index."""

_TARGETS = 7  # stream of randomness


class Tally(NamedTuple):
    """What one attack did on a shard under one threat; sums over shards make an AttackResult."""

    entered: int
    broken: int
    first: int
    queries: int
    forwards: int
    backwards: int
    seconds: float
    refused: int
    """Claimed successes the last check refused; 0 unless something is wrong."""


class Ended(NamedTuple):
    """A shard's rows under one threat. Everything is in the order of the shard's rows."""

    broken_by: NDArray[np.int16]
    prediction: NDArray[np.int64]
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    witness: NDArray[np.float32]
    """x' (W, …) of the broken rows, clean errors included, in the rows' order; of every row for a Craft job."""
    tallies: tuple[Tally, ...]


_ARRAYS = ("broken_by", "prediction", "distance", "queries", "witness")


class Shard(NamedTuple):
    """A finished shard."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    """Predictions on the clean rows."""
    ended: tuple[Ended, ...]


def attack_shard(job: Evaluate | Craft, bench: Bench, index: NDArray[np.int64], tell: Callable[[int], None]) -> Shard:
    """Attack rows `index` of the dataset. `tell(n)` is called as n more row-attacks are done."""
    rows = torch.from_numpy(index)
    x = bench.rows(rows)
    scores = bench.target.verdict(x)
    labels = scores.argmax(1) if bench.data.labels is None else torch.from_numpy(bench.data.labels[index]).to(x.device)
    key = random.keys(job.seed, rows.to(x.device))
    ended = tuple(_under(job, threat, bench, x, labels, scores, key, tell) for threat in job.threats)
    return Shard(index, labels.cpu().numpy(), _predictions(scores, labels).cpu().numpy(), ended)


def _predictions(scores: Tensor, labels: Tensor) -> Tensor:
    """Predicted classes; a tie with the label's score goes to the label, for a tie is not a success."""
    return torch.where(Goal(labels).reached(scores), scores.argmax(1), labels)


def _under(
    job: Evaluate | Craft, threat: Threat, bench: Bench, x: Tensor, labels: Tensor, scores: Tensor, key: Tensor, tell: Callable[[int], None]
) -> Ended:
    clean, classes = _predictions(scores, labels), scores.shape[1]
    craft = job.kind == "craft"
    entered = torch.nonzero(clean == labels).flatten()
    goal = _goal(threat, labels, key, classes)
    eps = x.new_full((len(x),), threat.radius, dtype=torch.float64)
    region = ball(threat.norm, x, eps, bench.data.bounds)
    problem = Problem(goal, region, key, stop=not craft).select(entered)
    broken_by = torch.where(clean == labels, UNBROKEN, CLEAN)
    witness, prediction = x.clone(), clean.clone()
    queries = torch.ones_like(labels)  # the look at the clean row
    tallies = []
    attacks = job.against(threat)
    for at, (name, spec) in enumerate(zip(names(attacks), attacks, strict=True)):
        outcome, tally = _run(spec, threat, bench, problem.fork(zlib.crc32(name.encode())))
        confirmed, predictions = _confirm(bench, problem, outcome)
        first = confirmed & (broken_by[entered] == UNBROKEN)
        kept = entered if craft else entered[first]
        taken = torch.ones_like(first) if craft else first
        witness[kept], broken_by[entered[first]] = outcome.x[taken], at
        prediction[kept] = predictions[taken]
        queries[entered] += outcome.queries
        tallies.append(
            tally._replace(
                broken=int(confirmed.sum()),
                first=int(first.sum()),
                queries=int(outcome.queries.sum()),
                refused=int((outcome.success & ~confirmed).sum()),
            )
        )
        tell(len(x))
    shown = torch.ones_like(broken_by, dtype=torch.bool) if craft else broken_by != UNBROKEN
    return Ended(
        broken_by.to(torch.int16).cpu().numpy(),
        prediction.cpu().numpy(),
        region.distance(witness).cpu().numpy(),
        queries.cpu().numpy(),
        witness[shown].cpu().numpy(),
        tuple(tallies),
    )


def _goal(threat: Threat, labels: Tensor, key: Tensor, classes: int) -> Goal:
    if not threat.targeted:
        return Goal(labels)
    drawn = random.integers(random.fork(key, _TARGETS), classes - 1)
    return Goal(torch.where(drawn >= labels, drawn + 1, drawn), targeted=True)


def _run(spec: AttackSpec, threat: Threat, bench: Bench, problem: Problem) -> tuple[Outcome, Tally]:
    spent = bench.target.spent
    forwards, backwards, began = spent.forwards, spent.backwards, time.process_time()
    outcome = catalogue.run(spec, threat.radius, bench.target, problem)
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
    seconds = time.process_time() - began
    return outcome, Tally(len(problem.key), 0, 0, 0, spent.forwards - forwards, spent.backwards - backwards, seconds, 0)


def _confirm(bench: Bench, problem: Problem, outcome: Outcome) -> tuple[Tensor, Tensor]:
    """The last word: every kept point once more before the judge, and inside ball and bounds in float64.

    Returns (B,) bool confirmed successes, and (B,) predictions at the points that were looked at.
    """
    looked = torch.nonzero(outcome.success | (not problem.stop)).flatten()
    confirmed, predictions = torch.zeros_like(outcome.success), problem.goal.labels.clone()
    if len(looked):
        scores = bench.target.verdict(outcome.x[looked])
        part = problem.select(looked)
        confirmed[looked] = outcome.success[looked] & part.goal.reached(scores) & part.ball.contains(outcome.x[looked])
        predictions[looked] = _predictions(scores, problem.goal.labels[looked]) if not problem.goal.targeted else scores.argmax(1)
        outcome.queries[looked] += 1
    return confirmed, predictions


def save(path: Path, shard: Shard, plan: str) -> None:
    """Write a shard so that it is whole or absent. `plan` is the digest of what it belongs to."""
    arrays: dict[str, NDArray[Any]] = {"rows": shard.rows, "labels": shard.labels, "clean": shard.clean}
    for at, ended in enumerate(shard.ended):
        arrays |= {f"{at}.{field}": getattr(ended, field) for field in _ARRAYS}
    meta = {"plan": plan, "tallies": [ended.tallies for ended in shard.ended]}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, plan: str) -> Shard | None:
    """Read a shard back; None if it is absent, damaged (zip checksums) or belongs to another plan."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        if meta["plan"] != plan:
            return None
        ended = tuple(
            Ended(**{field: arrays[f"{at}.{field}"] for field in _ARRAYS}, tallies=tuple(Tally(*tally) for tally in tallies))
            for at, tallies in enumerate(meta["tallies"])
        )
        return Shard(arrays["rows"], arrays["labels"], arrays["clean"], ended)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        return None

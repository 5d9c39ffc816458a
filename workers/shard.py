"""One shard: some rows, through every threat and attack of the job, judged, and written down as the checkpoint."""

import json
import os
import time
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
    faulty: int
    """Rows on which the model answered NaN or infinity at some point."""


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


class _Scene(NamedTuple):
    """What every threat of a shard starts from."""

    job: Evaluate | Craft
    bench: Bench
    x: Tensor
    labels: Tensor
    clean: Tensor
    classes: int
    key: Tensor

    @property
    def whole(self) -> bool:
        """Every row is kept and runs the full course."""
        return self.job.kind == "craft"


def attack_shard(job: Evaluate | Craft, bench: Bench, index: NDArray[np.int64], tell: Callable[[int], None]) -> Shard:
    """Attack rows `index` of the dataset. `tell(n)` is called as n more row-attacks are done."""
    rows = torch.from_numpy(index)
    x = bench.rows(rows)
    scores = bench.target.verdict(x)
    labels = scores.argmax(1) if bench.data.labels is None else torch.from_numpy(bench.data.labels[index]).to(x.device)
    scene = _Scene(job, bench, x, labels, predictions(scores), scores.shape[1], random.keys(job.seed, rows.to(x.device)))
    ended = tuple(_under(scene, threat, tell) for threat in job.threats)
    return Shard(index, labels.cpu().numpy(), scene.clean.cpu().numpy(), ended)


def predictions(scores: Tensor) -> Tensor:
    """Predicted classes (B,) of scores (B, K); -1, which is no class, where the model answers NaN or infinity."""
    return torch.where(torch.isfinite(scores).all(1), scores.argmax(1), -1)


def _under(scene: _Scene, threat: Threat, tell: Callable[[int], None]) -> Ended:
    right = scene.clean == scene.labels
    entered = torch.nonzero(right).flatten()
    whole = _problem(scene, threat)
    problem = whole.select(entered)
    broken_by = torch.where(right, UNBROKEN, CLEAN)
    witness, prediction = scene.x.clone(), scene.clean.clone()
    queries = torch.zeros_like(scene.labels)
    tallies = []
    attacks = scene.job.against(threat)
    for at, (name, spec) in enumerate(zip(names(attacks), attacks, strict=True)):
        outcome, seen, tally = _run(spec, threat, scene.bench, problem.fork(zlib.crc32(name.encode())))
        first = outcome.success & (broken_by[entered] == UNBROKEN)
        taken = torch.ones_like(first) if scene.whole else first
        witness[entered[taken]], prediction[entered[taken]] = outcome.x[taken], seen[taken]
        broken_by[entered[first]] = at
        queries[entered] += outcome.queries
        tallies.append(tally._replace(first=int(first.sum())))
        tell(len(right))
    shown = torch.ones_like(right) if scene.whole else broken_by != UNBROKEN
    return Ended(
        broken_by.to(torch.int16).cpu().numpy(),
        prediction.cpu().numpy(),
        whole.ball.distance(witness).cpu().numpy(),
        queries.cpu().numpy(),
        witness[shown].cpu().numpy(),
        tuple(tallies),
    )


def _problem(scene: _Scene, threat: Threat) -> Problem:
    goal = Goal(scene.labels)
    if threat.targeted:
        drawn = random.integers(random.fork(scene.key, _TARGETS), scene.classes - 1)
        goal = Goal(torch.where(drawn >= scene.labels, drawn + 1, drawn), targeted=True)
    eps = scene.x.new_full((len(scene.x),), threat.radius, dtype=torch.float64)
    region = ball(threat.norm, scene.x, eps, scene.bench.data.bounds)
    return Problem(goal, region, scene.key, stop=not scene.whole)


def _run(spec: AttackSpec, threat: Threat, bench: Bench, problem: Problem) -> tuple[Outcome, Tensor, Tally]:
    """One attack and the last word on it; also the predictions (B,) at the kept points that were looked at."""
    spent = bench.target.spent
    forwards, backwards, began = spent.forwards, spent.backwards, time.process_time()
    claimed = catalogue.run(spec, threat.radius, bench.target, problem)
    outcome, seen = _confirm(bench, problem, claimed)
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
    return (
        outcome,
        seen,
        Tally(
            entered=len(problem.key),
            broken=int(outcome.success.sum()),
            first=0,
            queries=int(outcome.queries.sum()),
            forwards=spent.forwards - forwards,
            backwards=spent.backwards - backwards,
            seconds=time.process_time() - began,
            refused=int((claimed.success & ~outcome.success).sum()),
            faulty=int(outcome.faulty.sum()),
        ),
    )


def _confirm(bench: Bench, problem: Problem, claimed: Outcome) -> tuple[Outcome, Tensor]:
    """Every kept point once more before the judge, and inside ball and bounds in float64, or it is no success."""
    looked = torch.nonzero(claimed.success | (not problem.stop)).flatten()
    seen = torch.full_like(problem.goal.labels, -1)
    success, queries = torch.zeros_like(claimed.success), claimed.queries.clone()
    if len(looked):
        scores, part = bench.target.verdict(claimed.x[looked]), problem.select(looked)
        success[looked] = claimed.success[looked] & part.goal.reached(scores) & part.ball.contains(claimed.x[looked])
        seen[looked] = predictions(scores)
        queries[looked] += 1
    return claimed._replace(success=success, queries=queries), seen


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
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        if meta["plan"] != plan:
            return None
        ended = tuple(
            Ended(**{field: arrays[f"{at}.{field}"] for field in _ARRAYS}, tallies=tuple(Tally(*tally) for tally in tallies))
            for at, tallies in enumerate(meta["tallies"])
        )
        return Shard(arrays["rows"], arrays["labels"], arrays["clean"], ended)
    except Exception:  # zipfile and numpy raise almost anything on damaged bytes, and all of it means the same
        return None

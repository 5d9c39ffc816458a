"""One unit of the checks' work: what holds of the model, or under one threat. It is kept beside the shards for a later attempt."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sparring.attacks.problem import Goal
from sparring.contract.attacks import AttackSpec
from sparring.contract.jobs import Evaluate
from sparring.workers.bench import Bench, Facts, feasible
from sparring.workers.course import scene
from sparring.workers.pt2.mode import in_training
from sparring.workers.shard import UNBROKEN, Ended
from sparring.workers.trust import probes
from sparring.workers.trust.model_rules import searches
from sparring.workers.trust.probes import Stand
from sparring.workers.trust.sample import sample
from sparring.workers.trust.seen import Effort, OfModel, Seen, UnderThreat

FLOOR = 80
"""Passes forward over the sample that a unit may always take; a pass backward counts as two."""
SHARE, OF_ALL = 0.12, 0.03
"""Of what the attacks took under its threat; and for the model itself, of what all of them took."""
T = TypeVar("T")


class Given(NamedTuple):
    """What a unit is about."""

    threat: int | None
    """One of the job's; None: the model itself."""
    rows: NDArray[np.int64]
    """The sample, right before any attack."""
    standing: NDArray[np.bool_]
    """Which of them no attack broke."""
    budget: float
    """Rows forward that it may take; a row backward counts as two."""
    searched: bool
    """Some attack under the threat needs no gradient."""


_OF_ALL = Given(None, np.empty(0, np.int64), np.empty(0, np.bool_), 0.0, searched=True)


class _Purse:
    """What may be spent: a measurement that may cost more than is left is left out."""

    def __init__(self, bench: Bench, budget: float) -> None:
        self._spent, self._budget = bench.target.spent, budget
        self._start = self._spent.forwards, self._spent.backwards
        self._began = time.process_time()

    def buy(self, price: float, make: Callable[[], T]) -> T | None:
        used = self.effort()
        return make() if used.forwards + 2 * used.backwards + price <= self._budget else None

    def effort(self) -> Effort:
        forwards, backwards = self._start
        return Effort(
            forwards=self._spent.forwards - forwards,
            backwards=self._spent.backwards - backwards,
            seconds=time.process_time() - self._began,
        )


def look(job: Evaluate, bench: Bench, given: Given) -> OfModel | UnderThreat:
    """Measure on the rows of a unit."""
    assert bench.facts is not None, "preflight comes first"
    blind = bench.facts.draws or not len(given.rows)
    purse = _Purse(bench, given.budget)
    if given.threat is not None:
        return UnderThreat() if blind else _under(job, bench, given, purse)
    modes = (*in_training(bench.target.judge), *in_training(bench.target.search))
    found = OfModel() if blind or not _climbs(job, bench) else _of_model(job, bench, given, purse)
    return found.model_copy(update={"modes": modes, "changed": bench.fingerprint() != bench.seal, "effort": purse.effort()})


def _climbs(job: Evaluate, bench: Bench) -> bool:
    assert bench.facts is not None
    return any(attack.access == "gradient" for threat in job.threats for attack in feasible(job, threat, bench.facts))


def _of_model(job: Evaluate, bench: Bench, given: Given, purse: _Purse) -> OfModel:
    posed, target, rows = scene(job, bench, given.rows), bench.target, len(given.rows)
    goal, x = Goal(posed.labels), posed.x
    return OfModel(
        slopes=purse.buy(9 * rows, lambda: probes.slopes(target, goal, x)),
        scale=purse.buy(rows, lambda: probes.scale(target, x)),
        whole=purse.buy((3 * probes.FAR + 2) * probes.TRIES * rows, lambda: probes.whole(target, goal, x, bench.data.bounds, posed.key)),
    )


def _under(job: Evaluate, bench: Bench, given: Given, purse: _Purse) -> UnderThreat:
    assert bench.facts is not None
    assert given.threat is not None
    threat = job.threats[given.threat]
    attacks = feasible(job, threat, bench.facts)
    spec = probes.main_attack(attacks, threat.norm)
    if spec is None or threat.radius == 0:
        return UnderThreat()
    posed = scene(job, bench, given.rows)
    stand = Stand(bench.target, posed.problem(threat, threat.radius), threat.radius, torch.from_numpy(given.standing).to(posed.x.device))
    rows, left = len(given.rows), int(given.standing.sum())
    tremor = purse.buy((probes.DIRECTIONS + 1) * rows, lambda: probes.tremor(stand))
    course = purse.buy((3 * spec.steps + 12) * rows, lambda: probes.course(stand, spec))
    longer = purse.buy((6 * spec.steps + 2) * left, lambda: probes.longer(stand, spec))
    tenfold = purse.buy((6 * probes.STEPS + 4) * rows, lambda: probes.tenfold(stand))
    asked = None if given.searched else purse.buy((probes.QUERIES + 2) * left, lambda: probes.asked(stand))
    return UnderThreat(course=course, longer=longer, tenfold=tenfold, tremor=tremor, asked=asked, effort=purse.effort())


def units(job: Evaluate, facts: Facts, rows: NDArray[np.int64], right: NDArray[np.bool_], ended: Sequence[Ended]) -> tuple[Given, ...]:
    """What there is to do after the shards: the model itself, then each threat.

    Args:
        job: what was asked.
        facts: of the preflight.
        rows: (rows,), of the dataset.
        right: (rows,) bool: right before any attack.
        ended: every row under each threat.
    """
    stands = [right & (each.broken_by == UNBROKEN) for each in ended]
    took = [_took(feasible(job, threat, facts), each) for threat, each in zip(job.threats, ended, strict=True)]
    of_all = _given(None, rows, right, np.logical_and.reduce(stands), OF_ALL * sum(took), job.seed)
    found = [of_all]
    for at, threat in enumerate(job.threats):
        given = _given(at, rows, right, stands[at], SHARE * took[at], job.seed)
        found.append(given._replace(searched=searches(feasible(job, threat, facts))))
    return tuple(found)


def _given(
    threat: int | None, rows: NDArray[np.int64], right: NDArray[np.bool_], stands: NDArray[np.bool_], budget: float, seed: int
) -> Given:
    chosen = sample(right, stands, seed)
    return Given(threat, rows[chosen], stands[chosen], max(budget, FLOOR * len(chosen)), searched=True)


def _took(attacks: Sequence[AttackSpec], ended: Ended) -> float:
    """Rows forward, a row backward counted as two: from the queries, which no division into shards changes."""
    pairs = zip(attacks, ended.tallies, strict=True)
    return float(sum(tally.queries * (3 if attack.access == "gradient" else 1) for attack, tally in pairs))


def nothing(job: Evaluate) -> Seen:
    """Of a model that cannot be looked into."""
    return Seen(threats=tuple(UnderThreat() for _ in job.threats))


def name(given: Given) -> str:
    """Of the file a unit is kept in."""
    return f"checks-{'model' if given.threat is None else given.threat}.json"


def save(path: Path, plan: str, seen: OfModel | UnderThreat) -> None:
    """Write it so that it is whole or absent. `plan` is the digest of what it belongs to."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump({"plan": plan, "seen": seen.model_dump(mode="json")}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def recall(path: Path, plan: str) -> OfModel | UnderThreat | None:
    """Read it back; None if it is absent, damaged or belongs to another plan."""
    try:
        kept = json.loads(path.read_bytes())
        kind = OfModel if path.name == name(_OF_ALL) else UnderThreat
        return kind.model_validate(kept["seen"]) if kept["plan"] == plan else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def gather(paths: Sequence[Path], plan: str) -> Seen:
    """All units together. Raises OSError when one is damaged."""
    found = [recall(path, plan) for path in paths]
    of_all = [part for part in found if isinstance(part, OfModel)]
    threats = tuple(part for part in found if isinstance(part, UnderThreat))
    if len(of_all) != 1 or len(threats) != len(paths) - 1:
        raise OSError("what the checks measured cannot be read back")
    return Seen(model=of_all[0], threats=threats)

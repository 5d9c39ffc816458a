"""What became of one threat: each attack, every class, and the smallest changes, from the rows of all shards."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sparring.contract.attacks import AttackSpec, names
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import (
    AttackResult,
    ClassScore,
    CurvePoint,
    MinimalResult,
    QueryPoint,
    Score,
    SurrogateResult,
    ThreatResult,
    Trust,
    UniversalResult,
)
from sparring.contract.threat import Threat
from sparring.workers import levels, moved
from sparring.workers.bench import Facts, feasible
from sparring.workers.shard import UNBROKEN, Ended, Tally
from sparring.workers.surrogates import Studied, lessons

_STOPS = 24


def threat_result(
    job: Evaluate | Craft,
    facts: Facts,
    threat: Threat,
    ended: Ended,
    labels: NDArray[np.int64],
    clean: NDArray[np.int64],
    trust: Trust,
    learnt: dict[str, Studied],
) -> ThreatResult:
    """One threat of a job, from what its shards say together.

    Args:
        job: what was asked.
        facts: of the preflight.
        threat: one of the job's.
        ended: every row under it.
        labels: (rows,).
        clean: (rows,): predictions before any attack.
        trust: how far the number may be believed.
        learnt: what came of each lesson, by its file.
    """
    total, right = len(labels), clean == labels
    attacks = feasible(job, threat, facts)
    stands = ended.broken_by == UNBROKEN
    each = tuple(
        _attack_result(
            *(name, attack, tally, fell[fell > 0], total),
            distances=moved.counted(ended.distance[ended.broken_by == at], threat),
            learnt=[learnt[lesson.file] for lesson in lessons(attack, threat, facts.shape[1:])],
        )
        for at, (name, attack, tally, fell) in enumerate(zip(names(attacks), attacks, ended.tallies, ended.fell.T, strict=True))
    )
    broken = ended.distance[ended.broken_by >= 0]
    median = float(np.median(broken)) if len(broken) else None
    worst = Score(count=int(stands.sum()), total=total)
    proved = int(ended.proved.sum())
    return ThreatResult(
        threat=threat,
        each=each,
        worst=worst,
        levels=levels.results(attacks, ended.wins, right),
        proved=proved if job.kind == "evaluate" and job.skip_proved else None,
        certified=proved if job.kind == "evaluate" and job.certificate else None,
        classes=tuple(_class_score(int(label), labels == label, right, stands) for label in np.unique(labels)),
        moves=moved.moves(labels, clean, ended.prediction),
        median_distance=median,
        trust=trust,
    )


def _attack_result(
    name: str,
    attack: AttackSpec,
    tally: Tally,
    fell: NDArray[np.int64],
    total: int,
    *,
    distances: tuple[int, ...],
    learnt: Sequence[Studied],
) -> AttackResult:
    """`fell`: after how many queries each row fell that did."""
    return AttackResult(
        name=name,
        attack=attack,
        robust=Score(count=tally.left, total=total),
        entered=tally.entered,
        broken=tally.broken,
        carried=tally.carried,
        first=tally.first,
        queries=tally.queries,
        forwards=tally.forwards,
        backwards=tally.backwards,
        seconds=tally.seconds,
        surrogates=tuple(each for each in learnt if isinstance(each, SurrogateResult)),
        universal=next((each for each in learnt if isinstance(each, UniversalResult)), None),
        smoothness=tally.divergence / tally.entered if attack.kind == "vat" and tally.entered else None,
        median_queries=_quantile(fell, 0.5),
        p90_queries=_quantile(fell, 0.9),
        by_queries=_by_queries(fell),
        distances=distances,
    )


def _class_score(label: int, own: NDArray[np.bool_], right: NDArray[np.bool_], stands: NDArray[np.bool_]) -> ClassScore:
    total = int(own.sum())
    clean, robust = (Score(count=int(rows[own].sum()), total=total) for rows in (right, stands))
    return ClassScore(label=label, clean=clean, robust=robust)


def _quantile(fell: NDArray[np.int64], share: float) -> int | None:
    return int(np.quantile(fell, share, method="inverted_cdf")) if len(fell) else None


def _by_queries(fell: NDArray[np.int64]) -> tuple[QueryPoint, ...]:
    """How many rows had fallen after so many queries, at numbers that occur."""
    stops = {_quantile(fell, float(share)) for share in np.linspace(0, 1, _STOPS)} - {None}
    return tuple(QueryPoint(queries=stop, broken=int((fell <= stop).sum())) for stop in sorted(filter(None, stops)))


def curve(clean: Score, threats: Sequence[ThreatResult]) -> tuple[CurvePoint, ...]:
    """Per norm and kind of goal: the clean accuracy at 0, then the worst cases by growing eps."""
    points = []
    for norm, targeted in dict.fromkeys((result.threat.norm, result.threat.targeted) for result in threats):
        own = [r for r in threats if (r.threat.norm, r.threat.targeted) == (norm, targeted)]
        points.append(CurvePoint(norm=norm, eps=0.0, robust=clean, targeted=targeted))
        points += [
            CurvePoint(norm=norm, eps=r.threat.radius, robust=r.worst, targeted=targeted)
            for r in sorted(own, key=lambda r: r.threat.radius)
            if r.threat.radius > 0
        ]
    return tuple(points)


def minimal(job: Evaluate | Craft, facts: Facts, each: Sequence[Ended], right: NDArray[np.bool_]) -> Iterator[MinimalResult]:
    """One per attack without an eps of its own, norm and kind of goal."""
    seen = set()
    for threat, ended in zip(job.threats, each, strict=True):
        attacks = feasible(job, threat, facts)
        free = [name for name, attack in zip(names(attacks), attacks, strict=True) if not attack.bounded]
        for name, reach in zip(free[: ended.reach.shape[1]], ended.reach.T, strict=True):
            if (key := (threat.norm, threat.targeted, name)) in seen:
                continue
            seen.add(key)
            yield _reached(name, threat, reach, right)


def _reached(name: str, threat: Threat, reach: NDArray[np.float64], right: NDArray[np.bool_]) -> MinimalResult:
    own = np.sort(reach[right])
    found = own[np.isfinite(own)]
    middle = float(np.median(own)) if len(own) else float("inf")
    stops = sorted({0.0, *(float(found[int(share * (len(found) - 1))]) for share in np.linspace(0, 1, 32) if len(found))})
    curve = tuple(
        CurvePoint(norm=threat.norm, eps=eps, robust=Score(count=int((own > eps).sum()), total=len(right)), targeted=threat.targeted)
        for eps in stops
    )
    return MinimalResult(
        name=name,
        norm=threat.norm,
        targeted=threat.targeted,
        found=Score(count=len(found), total=len(own)),
        median_distance=middle if np.isfinite(middle) else None,
        curve=curve,
    )

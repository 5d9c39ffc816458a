"""The rows of one shard through every threat and attack of a job, each claim judged.

A row broken at a small eps is broken at a larger one, by the same x'; it is not attacked there again.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparring.attacks import catalogue, problem, random
from sparring.attacks.access import Decisions, Target
from sparring.attacks.bounds import Bounded
from sparring.attacks.losses import kl
from sparring.attacks.norms import ball
from sparring.attacks.operators import Unbounded
from sparring.attacks.problem import Goal, Outcome, Problem
from sparring.attacks.replay import Known, replay
from sparring.contract.attacks import AttackSpec, names
from sparring.contract.certificates import AnyCertificate, IntervalBounds
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.threat import Threat
from sparring.defenses.certify import certify
from sparring.workers.bench import Bench, feasible, proves, smoothing_of
from sparring.workers.corruptions import suffer
from sparring.workers.shard import CLEAN, UNBROKEN, Ended, Shard, Tally

TARGETS, _OTHERS, _NOISE = 7, 8, 9  # streams of randomness


class _Held(NamedTuple):
    """Rows of the shard that an attack has broken, by their place in it, with x' (N, …) and what is predicted there."""

    rows: Tensor
    x: Tensor
    seen: Tensor


class _Reach(NamedTuple):
    """The nearest x' found for each row of the shard, at what distance; infinite where none was found."""

    distance: Tensor
    x: Tensor
    seen: Tensor


@dataclass
class Scene:
    """What every threat of a shard starts from, and what the smaller ones leave to the larger."""

    job: Evaluate | Craft
    bench: Bench
    x: Tensor
    labels: Tensor
    scores: Tensor
    clean: Tensor
    key: Tensor
    index: NDArray[np.int64]
    """Which rows of the data these are."""
    bounded: Bounded | None
    """By which rows are proved robust, if the job wants that and the model allows it."""
    radius: Tensor | None = None
    """(B,) float64: within which rows keep their label for certain, if the model is smoothed; 0 where that is not certain anywhere."""
    held: dict[tuple[str, bool, str], _Held] = field(default_factory=dict)
    reached: dict[tuple[str, bool, str], _Reach] = field(default_factory=dict)
    proved: dict[tuple[str, bool, str], Tensor] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Every row is kept and runs the full course."""
        return self.job.kind == "craft"

    @property
    def cascaded(self) -> bool:
        """Attacks see only what those before them left."""
        return self.job.kind == "evaluate" and self.job.cascaded

    @property
    def certificate(self) -> AnyCertificate | None:
        """How rows are certified that are attacked all the same."""
        return self.job.certificate if self.job.kind == "evaluate" else None

    def problem(self, threat: Threat, radius: float) -> Problem:
        """Every row of the shard under a threat, at this radius."""
        goal = Goal(self.labels)
        if threat.targeted:
            drawn = random.integers(random.fork(self.key, TARGETS), self.scores.shape[1] - 1)
            goal = Goal(torch.where(drawn >= self.labels, drawn + 1, drawn), targeted=True)
        eps = self.x.new_full((len(self.x),), radius, dtype=torch.float64)
        return problem.problem(goal, ball(threat.norm, self.x, eps, self.bench.data.bounds), self.key, stop=not self.whole)

    def others(self, part: Problem) -> Tensor | None:
        """For each row of `part` one of the data drawn from those of the class to reach, or of any other class; None without labels.

        Where there is no such row, it is the first one of the data.
        """
        if self.bench.data.labels is None:
            return None
        labels, own = self.bench.data.labels[: self.job.rows], part.goal.labels.cpu().numpy()
        order = np.argsort(labels, kind="stable")
        first, last = (np.searchsorted(labels, own, side=side, sorter=order) for side in ("left", "right"))
        count = last - first if part.goal.targeted else len(labels) - (last - first)
        drawn = random.integers(random.fork(part.key.cpu(), _OTHERS), torch.from_numpy(count).clamp(min=1)).numpy()
        place = first + drawn if part.goal.targeted else np.where(drawn < first, drawn, drawn + last - first)
        return self.bench.rows(torch.from_numpy(order[np.where(count > 0, place, 0)]))


def attack_shard(job: Evaluate | Craft, bench: Bench, index: NDArray[np.int64], tell: Callable[[int], None]) -> Shard:
    """Attack rows `index` of the dataset. `tell(n)` is called as n more row-attacks are done."""
    here = scene(job, bench, index)
    rising = sorted(range(len(job.threats)), key=lambda at: job.threats[at].radius)
    ended = {at: _Round(here, job.threats[at]).fight(tell) for at in rising}
    corrupted = suffer(job, bench, here.x, here.labels, here.key, tell)
    return Shard(index, here.labels.cpu().numpy(), here.clean.cpu().numpy(), tuple(ended[at] for at in sorted(ended)), corrupted)


def scene(job: Evaluate | Craft, bench: Bench, index: NDArray[np.int64]) -> Scene:
    """What every threat starts from on rows `index` of the dataset."""
    rows = torch.from_numpy(index)
    x = bench.rows(rows)
    scores = bench.target.verdict(x)
    labels = scores.argmax(1) if bench.data.labels is None else torch.from_numpy(bench.data.labels[index]).to(x.device)
    key = random.keys(job.seed, rows.to(x.device))
    sure = _radius(job, bench, x, labels, key)
    return Scene(job, bench, x, labels, scores, predictions(scores), key, index, _bounded(job, bench, x), sure)


def _bounded(job: Evaluate | Craft, bench: Bench, x: Tensor) -> Bounded | None:
    if not proves(job):
        return None
    try:
        return bench.bounded(x)
    except Unbounded:  # preflight has told of it
        return None


def _radius(job: Evaluate | Craft, bench: Bench, x: Tensor, labels: Tensor, key: Tensor) -> Tensor | None:
    spec = smoothing_of(job)
    if spec is None:
        return None
    base = Target(bench.model, bench.model, bench.target.tile)
    found = certify(base.verdict, x, random.fork(key, _NOISE), spec)
    return torch.where(found.labels == labels, found.radius, 0.0)


def predictions(scores: Tensor) -> Tensor:
    """Predicted classes (B,) of scores (B, K); -1, which is no class, where the model answers NaN or infinity."""
    return torch.where(torch.isfinite(scores).all(1), scores.argmax(1), -1)


class _Stage:
    """Turns the share of an attack that is behind us into row-attacks done."""

    def __init__(self, tell: Callable[[int], None], rows: int) -> None:
        self._tell, self._rows, self._told = tell, rows, 0

    def behind(self, share: float) -> None:
        more = int(share * self._rows) - self._told
        if more > 0:
            self._told += more
            self._tell(more)


class _Round:
    """A shard under one threat."""

    def __init__(self, scene: Scene, threat: Threat) -> None:
        self.scene, self.threat = scene, threat
        self.right = scene.clean == scene.labels
        self.problem = scene.problem(threat, threat.radius)
        self.broken_by = torch.where(self.right, UNBROKEN, CLEAN)
        self.witness, self.prediction = scene.x.clone(), scene.clean.clone()
        self.queries = torch.zeros_like(scene.labels)
        self.reach: list[Tensor] = []
        assert scene.bench.facts is not None, "preflight comes first"
        self.attacks = feasible(scene.job, threat, scene.bench.facts)
        self.wins = torch.zeros(len(self.right), len(self.attacks), dtype=torch.bool, device=self.right.device)
        self.fell: list[Tensor] = []
        self.proved = self._proved()

    def fight(self, tell: Callable[[int], None]) -> Ended:
        """Every attack in its order."""
        tallies = []
        for at, (name, spec) in enumerate(zip(names(self.attacks), self.attacks, strict=True)):
            stage = _Stage(tell, len(self.right))
            self.fell.append(torch.zeros_like(self.queries))
            self.scene.bench.target.tell = stage.behind
            once = not (spec.bounded or self.scene.cascaded or self.scene.whole)
            tally = self._within(name, spec) if once else self._try(name, spec)
            held = self._held(name)
            self.wins[held.rows, at] = True
            fresh = self.broken_by[held.rows] == UNBROKEN
            rows = held.rows[fresh]
            self.broken_by[rows], self.prediction[rows], self.witness[rows] = at, held.seen[fresh], held.x[fresh]
            gone = self.broken_by != UNBROKEN if self.scene.cascaded else self._gone(name)
            tallies.append(tally._replace(first=len(rows), left=int((self.right & ~gone).sum())))
            stage.behind(1.0)
        shown = torch.ones_like(self.right) if self.scene.whole else self.broken_by != UNBROKEN
        reach = torch.stack(self.reach, 1) if self.reach else self.problem.ball.eps[:, None][:, :0]
        return Ended(
            broken_by=self.broken_by.to(torch.int16).cpu().numpy(),
            prediction=self.prediction.cpu().numpy(),
            distance=self.problem.ball.distance(self.witness).cpu().numpy(),
            queries=self.queries.cpu().numpy(),
            witness=self.witness[shown].cpu().numpy(),
            reach=reach.cpu().numpy(),
            proved=self.proved.cpu().numpy(),
            wins=self.wins.cpu().numpy(),
            fell=torch.stack(self.fell, 1).cpu().numpy() if self.fell else self.queries[:, None][:, :0].cpu().numpy(),
            tallies=tuple(tallies),
        )

    def _proved(self) -> Tensor:
        """(B,) bool: rows that no point of the ball breaks. One not proved at a smaller eps is not tried at a larger."""
        proved, tried = torch.zeros_like(self.right), self.scene.proved.get(self._name(""), self.right)
        rows = torch.nonzero(self.right & tried).flatten()
        if self.scene.radius is not None:
            return self.right & (self.scene.radius > self.threat.radius)
        if self.scene.bounded is not None and len(rows):
            part, labels, scores = self.problem.select(rows), self.scene.labels[rows], self.scene.scores[rows]
            classes = torch.arange(scores.shape[1], device=rows.device)
            rivals = classes == part.goal.labels[:, None] if self.threat.targeted else classes != labels[:, None]
            lines = not isinstance(self.scene.certificate, IntervalBounds)
            proved[rows] = self.scene.bounded.robust(part.ball, labels, rivals, scores, lines=lines)
            self.scene.proved[self._name("")] = proved
        return proved

    def _name(self, name: str) -> tuple[str, bool, str]:
        return self.threat.norm, self.threat.targeted, name

    def _held(self, name: str) -> _Held:
        nothing = _Held(torch.zeros_like(self.scene.labels[:0]), self.scene.x[:0], self.scene.clean[:0])
        return self.scene.held.get(self._name(name), nothing)

    def _gone(self, name: str) -> Tensor:
        """(B,) bool: rows that are not to be tried again: the attack's own breaks, in a cascade anyone's."""
        gone = torch.zeros_like(self.right)
        for each in names(self.attacks) if self.scene.cascaded else (name,):
            gone[self._held(each).rows] = True
        return gone

    def _try(self, name: str, spec: AttackSpec) -> Tally:
        """An attack inside the ball, on the rows that it has not broken before; those that are proved are spared, unless it is a test."""
        blind = self.scene.whole and getattr(spec, "labels", "true") == "predicted"  # needs no label, so errors are rows like others
        spared = self.proved if self.scene.certificate is None else torch.zeros_like(self.proved)
        wanted, known = (self.right | blind) & ~self._gone(name) & ~spared, self._known(spec)
        if spec.kind == "replay":
            wanted = wanted & sum((each.there for each in known), torch.zeros_like(wanted))
        rows = torch.nonzero(wanted).flatten()
        part = self.problem.select(rows).fork(zlib.crc32(name.encode()))
        outcome, seen, tally = _run(spec, self.threat.radius, self.scene, part, rows, [_of(each, rows) for each in known])
        held, won = self._held(name), outcome.success & self.right[rows]
        new = _Held(rows[won], outcome.x[won], seen[won])
        self.scene.held[self._name(name)] = _Held(*(torch.cat(pair) for pair in zip(held, new, strict=True)))
        self.queries[rows] += outcome.queries
        if self.problem.stop:
            self.fell[-1][rows[won]] = outcome.queries[won]
        if self.scene.whole:
            inside = part.ball.contains(outcome.x)
            self.witness[rows[inside]], self.prediction[rows[inside]] = outcome.x[inside], seen[inside]
        return tally._replace(carried=len(held.rows))

    def _known(self, spec: AttackSpec) -> list[Known]:
        """What is replayed on the rows of the shard."""
        past = self.scene.bench.past
        return past.known(self.threat, self.scene.index, self.scene.x) if past and spec.kind == "replay" else []

    def _within(self, name: str, spec: AttackSpec) -> Tally:
        """An attack that looks for the smallest change: one run serves every eps of its norm."""
        known = self.scene.reached.get(self._name(name))
        rows = torch.nonzero(self.right).flatten()
        tally = Tally(len(rows), 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0)
        if known is None:
            part = self.scene.problem(self.threat, float("inf"))._replace(stop=False).select(rows).fork(zlib.crc32(name.encode()))
            outcome, seen, tally = _run(spec, float("inf"), self.scene, part, rows)
            distance = torch.where(self.right, float("inf"), 0.0).double()
            distance[rows] = torch.where(outcome.success, part.ball.distance(outcome.x), float("inf"))
            nearest, there = self.scene.x.clone(), self.scene.clean.clone()
            nearest[rows], there[rows] = outcome.x, seen
            known = self.scene.reached[self._name(name)] = _Reach(distance, nearest, there)
            self.queries[rows] += outcome.queries
        self.reach.append(known.distance)
        near = torch.nonzero(self.right & (known.distance <= self.threat.radius)).flatten()
        self.scene.held[self._name(name)] = _Held(near, known.x[near], known.seen[near])
        return tally._replace(broken=len(near))


def _of(known: Known, rows: Tensor) -> Known:
    return Known(known.there[rows], lambda: known.points()[rows])


def _run(
    spec: AttackSpec, eps: float, scene: Scene, part: Problem, rows: Tensor, known: Sequence[Known] = ()
) -> tuple[Outcome, Tensor, Tally]:
    """One attack on some rows and the last word on it; also the predictions (B,) at the kept points that were looked at."""
    bench, spent = scene.bench, scene.bench.target.spent
    forwards, backwards, began = spent.forwards, spent.backwards, time.process_time()
    if spec.kind == "vat":
        part = part._replace(stop=False)
    target = bench.target if spec.bounded else bench.target.exact()  # few digits say nothing of where a boundary runs
    if spec.access == "decision" and not spec.bounded:  # a walk, which begins somewhere else
        part = part._replace(other=scene.others(part))
    claimed = _nothing(part)
    if len(rows):
        replayed = spec.kind == "replay"
        claimed = replay(known)(Decisions(target), part) if replayed else catalogue.run(spec, eps, target, part, bench.school)
    outcome, scores = _confirm(bench, part, claimed)
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)
    tally = Tally(
        entered=len(part.key),
        broken=int(outcome.success.sum()),
        carried=0,
        left=0,
        first=0,
        queries=int(outcome.queries.sum()),
        forwards=spent.forwards - forwards,
        backwards=spent.backwards - backwards,
        seconds=time.process_time() - began,
        refused=int((claimed.success & ~outcome.success).sum()),
        faulty=int(outcome.faulty.sum()),
        divergence=float(kl(scores, Goal(scene.labels[rows], reference=scene.scores[rows])).sum()) if spec.kind == "vat" else 0.0,
    )
    return outcome, predictions(scores), tally


def _nothing(part: Problem) -> Outcome:
    """What becomes of no rows."""
    none = torch.zeros_like(part.attempt)
    return Outcome(part.x, none > 0, none.double(), none, none > 0)


def _confirm(bench: Bench, part: Problem, claimed: Outcome) -> tuple[Outcome, Tensor]:
    """Every kept point once more before the judge, and inside ball and bounds in float64, or it is no success.

    Also the scores (B, K) seen there; NaN where nobody looked.
    """
    looked = torch.nonzero(claimed.success | (not part.stop)).flatten()
    success, queries = torch.zeros_like(claimed.success), claimed.queries.clone()
    if not len(looked):
        return claimed._replace(success=success, queries=queries), claimed.x.new_full((len(success), 1), float("nan"))
    seen, asked = bench.again(claimed.x[looked]), part.select(looked)
    success[looked] = claimed.success[looked] & asked.goal.reached(seen) & asked.ball.contains(claimed.x[looked])
    queries[looked] += 1
    scores = seen.new_full((len(success), seen.shape[1]), float("nan"))
    scores[looked] = seen
    return claimed._replace(success=success, queries=queries), scores

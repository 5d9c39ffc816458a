"""Sample reports and pictures."""

from datetime import UTC, datetime, timedelta

import numpy as np

from sparring.contract.attacks import FGSM, PGD, AttackSpec, Noise, Square, names
from sparring.contract.corruptions import CorruptionName
from sparring.contract.jobs import Evaluate
from sparring.contract.report import (
    AttackResult,
    ClassScore,
    CorruptionResult,
    Cost,
    CurvePoint,
    DataFacts,
    Finding,
    MinimalResult,
    ModelFacts,
    Move,
    Provenance,
    QueryPoint,
    Report,
    Score,
    ThreatResult,
    Trust,
)
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.contract.threat import Threat
from sparring.reports.figures import amplified, picture_png
from sparring.reports.html import Picture

WHEN = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SHA = "ab" * 32
ROWS = 1000
CLEAN = 912
THREATS = (Threat(norm="linf", eps="4/255"), Threat(norm="linf", eps="8/255"), Threat(norm="l2", eps=0.5))
ATTACKS: tuple[AttackSpec, ...] = (Noise(), PGD(steps=20, alpha="2/255"), PGD(steps=40))


def threat_result(threat: Threat, attacks=ATTACKS, *, worst=431, trust=None, classes=10) -> ThreatResult:
    step = (CLEAN - worst) // len(attacks)
    each, left = [], CLEAN
    for at, (attack, name) in enumerate(zip(attacks, names(attacks), strict=True)):
        now = worst if at == len(attacks) - 1 else left - step
        each.append(
            AttackResult(
                name=name,
                attack=attack,
                robust=Score(count=now, total=ROWS),
                entered=left,
                broken=left - now,
                first=left - now,
                queries=left * 21,
                forwards=left * 21,
                backwards=left * 20 if attack.access == "gradient" else 0,
                seconds=3.217 * (at + 1),
            )
        )
        left = now
    per_class = tuple(
        ClassScore(label=k, clean=Score(count=90 + k % 3, total=100), robust=Score(count=20 + 7 * (k % 6), total=100))
        for k in range(classes)
    )
    return ThreatResult(
        threat=threat,
        each=tuple(each),
        worst=Score(count=worst, total=ROWS),
        classes=per_class,
        median_distance=threat.radius * 0.83,
        trust=trust or Trust(),
    )


def report(
    *,
    threats=THREATS,
    attacks=ATTACKS,
    warnings=(),
    trust=None,
    name="digits cnn.pt2",
    data="digits.npz",
    labelled=True,
    shape=(1, 28, 28),
    classes=10,
    minimal=(),
) -> Report:
    worst = {threat: 640 - 150 * at for at, threat in enumerate(threats)}
    return Report(
        job=Evaluate(model="mdl_" + "a1" * 10, data="dat_" + "b2" * 10, threats=threats, attacks=attacks, rows=ROWS, seed=7),
        model=ModelFacts(
            id="mdl_" + "a1" * 10,
            name=name,
            sha256=SHA,
            format="pt2",
            spec=ModelSpec(mean=(0.1307,), std=(0.3081,)),
            parameters=1_199_882,
            input_shape=shape,
            classes=10,
        ),
        data=DataFacts(
            name=data,
            sha256=SHA,
            format="npz",
            spec=DataSpec(bounds=(0, 1), scale=1 / 255),
            shape=(ROWS, *shape),
            dtype="uint8",
            labelled=labelled,
        ),
        clean=Score(count=CLEAN, total=ROWS),
        threats=tuple(threat_result(t, attacks, worst=worst[t], trust=trust, classes=classes) for t in threats),
        curve=tuple(CurvePoint(norm=t.norm, eps=t.radius, robust=Score(count=worst[t], total=ROWS), targeted=t.targeted) for t in threats),
        minimal=minimal,
        warnings=warnings,
        cost=Cost(queries=812_345, forwards=790_000, backwards=744_000, wall_seconds=83.2, attack_seconds=160.9),
        provenance=Provenance(
            sparring="0.1.0",
            python="3.11.7",
            torch="2.13.0",
            platform="Linux x86_64",
            device="cpu",
            processor="Example CPU",
            processes=2,
            threads=1,
            tile=64,
            rows_independent=True,
            environment={"MKL_CBWR": "AVX2,STRICT"},
            search=("batch norm folded", "channels last"),
            judge="the uploaded graph in float32",
            started=WHEN,
            finished=WHEN + timedelta(seconds=83),
        ),
    )


def minimal(name="fab", norm="linf", targeted=False, *, found=CLEAN, reach=0.1) -> MinimalResult:
    """So many of the clean rows found, at distances that grow evenly up to `reach`."""
    stops = [reach * at / 32 for at in range(33)] if found else [0.0]
    return MinimalResult(
        name=name,
        norm=norm,
        targeted=targeted,
        found=Score(count=found, total=CLEAN),
        median_distance=reach * CLEAN / found / 2 if 2 * found > CLEAN else None,
        curve=tuple(
            CurvePoint(norm=norm, eps=eps, robust=Score(count=CLEAN - round(found * eps / reach), total=ROWS), targeted=targeted)
            for eps in stops
        ),
    )


def asked(**changes) -> Report:
    """A report of Square and PGD, with the queries that their breaks took."""
    made = report(attacks=(Square(), PGD(steps=20)), **changes)
    told = {
        "median_queries": 120,
        "p90_queries": 2400,
        "by_queries": tuple(
            QueryPoint(queries=queries, broken=broken) for queries, broken in ((1, 3), (120, 90), (2400, 162), (5001, 180))
        ),
    }
    threats = tuple(r.model_copy(update={"each": tuple(each.model_copy(update=told) for each in r.each)}) for r in made.threats[:1])
    return made.model_copy(update={"threats": threats + made.threats[1:]})


def moved(*, classes=10, pairs=3) -> Report:
    """A report that says of its first threat which classes were confused, and how far the rows of noise and of PGD were moved."""
    made = report(classes=classes)
    first, *others = made.threats
    moves = (
        Move(label=4, prediction=9, clean=2, worst=31),
        Move(label=3, prediction=5, clean=1, worst=12),
        *(Move(label=2 + at, prediction=-1, clean=0, worst=1) for at in range(pairs - 2)),
    )
    distances = ((0, 5, 0, 1), (0, 0, 0, 90), (0, 0, 0, 0))
    each = tuple(one.model_copy(update={"distances": counts}) for one, counts in zip(first.each, distances, strict=True))
    return made.model_copy(update={"threats": (first.model_copy(update={"moves": moves, "each": each}), *others)})


def cascade(**changes) -> Report:
    """A report of attacks that saw only what those before them had left."""
    made = report(**changes)
    return made.model_copy(update={"job": made.job.model_copy(update={"cascade": True})})


def warning(**changes) -> Finding:
    return Finding(
        code="chance_accuracy",
        message="The clean accuracy is no better than chance.",
        hint="Check the labels and the normalisation: declare --mean and --std if the model expects normalised input.",
        evidence={"clean": 0.11, "chance": 0.1, "classes": [0, 1, 2]},
    ).model_copy(update=changes)


def digits(count=6, size=14, threat=1) -> list[Picture]:
    """Made-up pictures: a bright ring each, and noise on it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    made = []
    for row in range(count):
        ring = np.exp(-((np.hypot(x, y) - 2 - row / 2) ** 2))[..., None]
        delta = rng.uniform(-1, 1, ring.shape).round(1) * 8 / 255
        shown = [np.rint(255 * np.clip(a, 0, 1)).astype(np.uint8) for a in (ring, ring + delta)]
        made.append(
            Picture(
                row=17 * row,
                label=row,
                threat=threat,
                clean_prediction=row,
                prediction=(row + 5) % 10,
                broken_by="pgd",
                distance=8 / 255,
                original=picture_png(shown[0]),
                perturbation=picture_png(amplified(delta, 8 / 255)),
                adversarial=picture_png(shown[1]),
            )
        )
    return made


__all__ = [
    "ATTACKS",
    "CLEAN",
    "FGSM",
    "ROWS",
    "THREATS",
    "asked",
    "cascade",
    "digits",
    "minimal",
    "moved",
    "report",
    "threat_result",
    "warning",
]


def corrupted(*names: CorruptionName) -> Report:
    """The sample, with so many rows right under these corruptions: 900 at severity 1, 100 less at each further one."""
    severities = tuple(Score(count=900 - 100 * at, total=ROWS) for at in range(5))
    sample = report()
    return sample.model_copy(
        update={
            "job": sample.job.model_copy(update={"corruptions": names}),
            "corruptions": tuple(CorruptionResult(name=name, severities=severities) for name in names),
        }
    )

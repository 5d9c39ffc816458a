"""From finished shards to the report and the files beside it."""

import itertools
import os
import platform
import time
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import sparring
from sparring.contract.attacks import SUITES, AttackSpec, Knowledge, Substitute, Transfer, names
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import (
    AttackResult,
    ClassScore,
    Cost,
    CurvePoint,
    DataFacts,
    Finding,
    MinimalResult,
    ModelFacts,
    Provenance,
    QueryPoint,
    Report,
    Score,
    SurrogateResult,
    ThreatResult,
    Trust,
)
from sparring.contract.runner import Order
from sparring.contract.threat import Threat
from sparring.reports.html import html
from sparring.reports.markdown import markdown
from sparring.reports.rows import Row, write_csv
from sparring.workers import certified, corruptions, levels
from sparring.workers.bench import Facts, feasible
from sparring.workers.crew import CrewError, Trouble
from sparring.workers.gallery import gallery
from sparring.workers.shard import CLEAN, UNBROKEN, Ended, Shard, Tally, load
from sparring.workers.spare import ARITHMETIC
from sparring.workers.surrogates import learnt, lessons

_ROW_GROUP = 100_000
_STOPS = 24
_SUSPECT = frozenset(
    {
        "gradient_absent",
        "not_deterministic",
        "chance_accuracy",
        "refused_successes",
        "non_finite",
        "tied_scores",
        "proof_contradicted",
        "certificate_contradicted",
        "weaker_attacker_wins",
    }
)


class Run(NamedTuple):
    """What the runner knows beside the shards."""

    order: Order
    facts: Facts
    tile: int
    processes: int
    resumed: int
    started: datetime
    began: float
    """time.monotonic() at the start."""
    asked: int = 0
    sent: int = 0
    """Rows asked of an endpoint and requests sent to it, in all attempts of the job."""


class Results:
    """All shards, small fields in memory in the order of the rows; witnesses stay on disk until they are written out."""

    def __init__(self, shards: Sequence[Path], read: "Read") -> None:
        """Gather; `read(path)` gives a shard."""
        self._shards, self._read = shards, read
        parts = [_small(read(path)) for path in shards]
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        self.rows = rows[order]
        self.labels = np.concatenate([part.labels for part in parts])[order]
        self.clean = np.concatenate([part.clean for part in parts])[order]
        self.ended = tuple(_joined([part.ended[at] for part in parts], order) for at in range(len(parts[0].ended)))
        self.corrupted = np.concatenate([part.corrupted for part in parts])[order]
        self.shape = tuple(parts[0].ended[0].witness.shape[1:])

    def witnesses(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """(threat, rows, x') of each shard, as stored."""
        for path in self._shards:
            shard = self._read(path)
            for threat, ended in enumerate(shard.ended):
                whole = len(ended.witness) == len(shard.rows)  # crafting keeps every row
                yield threat, shard.rows if whole else shard.rows[ended.broken_by != UNBROKEN], ended.witness


class Read:
    """Reads shards of one plan back."""

    def __init__(self, digest: str) -> None:
        """Shards carry the plan's digest."""
        self._digest = digest

    def __call__(self, path: Path) -> Shard:
        """The shard at `path`. Raises OSError when it is damaged."""
        shard = load(path, self._digest)
        if shard is None:
            raise OSError(f"shard {path.name} cannot be read back")
        return shard


def _small(shard: Shard) -> Shard:
    return shard._replace(ended=tuple(ended._replace(witness=ended.witness[:0].copy()) for ended in shard.ended))


def _joined(parts: Sequence[Ended], order: NDArray[np.int64]) -> Ended:
    fields = ("broken_by", "prediction", "distance", "queries", "reach", "proved", "wins", "fell")
    joined = {field: np.concatenate([getattr(part, field) for part in parts])[order] for field in fields}
    tallies = tuple(Tally(*map(sum, zip(*each, strict=True))) for each in zip(*(part.tallies for part in parts), strict=True))
    return Ended(**joined, witness=parts[0].witness, tallies=tallies)


def write(run: Run, shards: Sequence[Path], digest: str) -> tuple[str, ...]:
    """Write every file of the job into its folder; returns their names.

    Raises:
        CrewError: a row is both proved to hold and broken.
    """
    out, results = Path(run.order.out), Results(shards, Read(digest))
    if wrong := certified.fault(run.order.job, results.ended):
        raise CrewError(Trouble(wrong))
    with (out / "rows.csv").open("w", newline="") as file:
        write_csv(_rows(run, results), file)
    _parquet(run, results, out / "rows.parquet")
    _examples(results, out)
    written = ["report.json", "report.html", "report.md", "rows.csv", "rows.parquet", "examples.npz"]
    if run.order.job.kind == "craft":
        _crafted(results, out)
        written.append("crafted.npz")
    report = compose(run, results, learnt(run.order, run.facts, digest))
    (out / "report.json").write_text(report.model_dump_json(indent=1))
    pictures = gallery(run.order, report, results)
    (out / "report.html").write_text(html(report, pictures))
    (out / "report.md").write_text(markdown(report))
    return tuple(written)


def compose(run: Run, results: Results, surrogates: dict[str, SurrogateResult]) -> Report:
    """The report of a job that attacks, from its shards."""
    order, facts = run.order, run.facts
    right = results.clean == results.labels
    clean = Score(count=int(right.sum()), total=len(right))
    tallies = [tally for ended in results.ended for tally in ended.tallies]
    findings = (*facts.findings, *_findings(order.job, facts, results, tallies))
    masked = [
        tuple(levels.masked(threat, feasible(order.job, threat, facts), ended.wins))
        for threat, ended in zip(order.job.threats, results.ended, strict=True)
    ]
    threats = tuple(
        _threat_result(run, threat, ended, results.labels, right, _trust((*findings, *own)), surrogates)
        for threat, ended, own in zip(order.job.threats, results.ended, masked, strict=True)
    )
    suffered = corruptions.results(order.job, facts, results.corrupted)
    looks = clean.total + sum(result.mean.total for result in suffered) + sum(each.queries for each in surrogates.values())
    return Report(
        job=order.job,
        model=_model(order, facts),
        data=_data(order, facts),
        clean=clean,
        threats=threats,
        curve=_curve(clean, threats),
        minimal=tuple(_minimal(run, results, right)),
        corruptions=suffered,
        warnings=(*findings, *itertools.chain(*masked)),
        cost=Cost(
            queries=sum(tally.queries for tally in tallies) + looks,
            forwards=sum(tally.forwards for tally in tallies) + looks,
            backwards=sum(tally.backwards for tally in tallies),
            wall_seconds=time.monotonic() - run.began,
            attack_seconds=sum(tally.seconds for tally in tallies),
            asked=run.asked if order.model.spec.endpoint else None,
            sent=run.sent if order.model.spec.endpoint else None,
        ),
        provenance=provenance(run),
    )


def _trust(findings: Sequence[Finding]) -> Trust:
    evidence = tuple(found for found in findings if found.code in _SUSPECT)
    return Trust(level="suspect" if evidence else "unchecked", evidence=evidence)


def _findings(job: Evaluate | Craft, facts: Facts, results: Results, tallies: Sequence[Tally]) -> Iterator[Finding]:
    """What only the attacks have shown."""
    if not facts.labelled:
        yield Finding(
            code="unlabelled",
            message="The data have no labels: the model's own predictions on the clean rows serve as labels.",
            hint="Clean accuracy is 100 % by definition; robust accuracy is the share of predictions that could not be changed.",
        )
    silent = int((results.clean < 0).sum())
    faulty = sum(tally.faulty for tally in tallies)
    if silent or faulty:
        yield Finding(
            code="non_finite",
            message=f"The model answers NaN or infinity on {silent} clean rows, and {faulty} times an attack led a row to such a point.",
            hint="Such clean rows count as errors. An attack that runs into NaN may stop there: look for divisions by zero in the model.",
            evidence={"clean_rows": silent, "rows_under_attack": faulty},
        )
    yield from certified.findings(job, results.ended)
    if refused := sum(tally.refused for tally in tallies):
        yield Finding(
            code="refused_successes",
            message=f"{refused} claimed successes did not hold when the judge looked again; they count as unbroken.",
            hint="The model may answer differently each time; see other findings.",
            evidence={"count": refused},
        )


def _model(order: Order, facts: Facts) -> ModelFacts:
    given = order.model
    return ModelFacts(
        **{name: getattr(given, name) for name in ("id", "name", "sha256", "format", "spec")},
        parameters=facts.parameters,
        input_shape=facts.shape[1:],
        classes=facts.classes,
    )


def _data(order: Order, facts: Facts) -> DataFacts:
    given = order.data
    return DataFacts(
        **{name: getattr(given, name) for name in ("id", "name", "sha256", "format")},
        spec=facts.spec,
        shape=facts.shape,
        dtype=facts.dtype,
        labelled=facts.labelled,
    )


def _threat_result(
    run: Run,
    threat: Threat,
    ended: Ended,
    labels: NDArray[np.int64],
    right: NDArray[np.bool_],
    trust: Trust,
    surrogates: dict[str, SurrogateResult],
) -> ThreatResult:
    total = len(labels)
    attacks = feasible(run.order.job, threat, run.facts)
    stands = ended.broken_by == UNBROKEN
    each = tuple(
        AttackResult(
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
            surrogates=_surrogates(attack, run.facts, surrogates),
            smoothness=tally.divergence / tally.entered if attack.kind == "vat" and tally.entered else None,
            median_queries=_quantile(fell[fell > 0], 0.5),
            p90_queries=_quantile(fell[fell > 0], 0.9),
            by_queries=_by_queries(fell[fell > 0]),
        )
        for name, attack, tally, fell in zip(names(attacks), attacks, ended.tallies, ended.fell.T, strict=True)
    )
    classes = tuple(
        ClassScore(
            label=int(label),
            clean=Score(count=int(right[labels == label].sum()), total=int((labels == label).sum())),
            robust=Score(count=int(stands[labels == label].sum()), total=int((labels == label).sum())),
        )
        for label in np.unique(labels)
    )
    broken = ended.distance[ended.broken_by >= 0]
    median = float(np.median(broken)) if len(broken) else None
    worst, job = Score(count=int(stands.sum()), total=total), run.order.job
    proved = int(ended.proved.sum())
    return ThreatResult(
        threat=threat,
        each=each,
        worst=worst,
        levels=levels.results(attacks, ended.wins, right),
        proved=proved if job.kind == "evaluate" and job.skip_proved else None,
        certified=proved if job.kind == "evaluate" and job.certificate else None,
        classes=classes,
        median_distance=median,
        trust=trust,
    )


def _surrogates(attack: AttackSpec, facts: Facts, known: dict[str, SurrogateResult]) -> tuple[SurrogateResult, ...]:
    if not isinstance(attack, (Transfer, Substitute)):
        return ()
    return tuple(known[lesson.file] for lesson in lessons(attack, facts.shape[1:]))


def _quantile(fell: NDArray[np.int64], share: float) -> int | None:
    return int(np.quantile(fell, share, method="inverted_cdf")) if len(fell) else None


def _by_queries(fell: NDArray[np.int64]) -> tuple[QueryPoint, ...]:
    """How many rows had fallen after so many queries, at numbers that occur."""
    stops = {_quantile(fell, float(share)) for share in np.linspace(0, 1, _STOPS)} - {None}
    return tuple(QueryPoint(queries=stop, broken=int((fell <= stop).sum())) for stop in sorted(filter(None, stops)))


def _curve(clean: Score, threats: Sequence[ThreatResult]) -> tuple[CurvePoint, ...]:
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


def _minimal(run: Run, results: Results, right: NDArray[np.bool_]) -> Iterator[MinimalResult]:
    """One per attack without an eps of its own, norm and kind of goal."""
    seen = set()
    for threat, ended in zip(run.order.job.threats, results.ended, strict=True):
        attacks = feasible(run.order.job, threat, run.facts)
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


def provenance(run: Run) -> Provenance:
    """All that is needed to tell a run again."""
    job = run.order.job
    return Provenance(
        sparring=sparring.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        device=run.facts.device,
        processor=processor(),
        processes=run.processes,
        threads=1,
        tile=run.tile,
        rows_independent=run.facts.independent,
        environment={name: os.environ.get(name, "") for name in ARITHMETIC},
        suite=SUITES[job.suite][0] if isinstance(job, Evaluate) and job.suite else "",
        search=run.facts.search,
        judge=f"{run.facts.judge}, asked afresh about every claimed success",
        proof=certified.method(run.order.job),
        resumed=run.resumed,
        started=run.started,
        finished=datetime.now(UTC),
    )


def processor() -> str:
    """The CPU by its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _rows(run: Run, results: Results) -> Iterator[Row]:
    for threat, ended in zip(run.order.job.threats, results.ended, strict=True):
        attacks = feasible(run.order.job, threat, run.facts)
        by, own = dict(enumerate(names(attacks))) | {CLEAN: "clean", UNBROKEN: ""}, levels.broken_at(attacks, ended.wins)
        for at, row in enumerate(results.rows):
            broken = int(ended.broken_by[at])
            yield Row(
                row=int(row),
                label=int(results.labels[at]),
                clean_prediction=int(results.clean[at]),
                norm=threat.norm,
                eps=threat.radius,
                broken=int(broken != UNBROKEN),
                broken_by=by[broken],
                prediction=int(ended.prediction[at]),
                distance=None if broken == UNBROKEN else float(ended.distance[at]),
                queries=int(ended.queries[at]),
                white=_bit(own, "white", at),
                gray=_bit(own, "gray", at),
                black=_bit(own, "black", at),
            )


def _bit(broken: dict[Knowledge, NDArray[np.bool_]], level: Knowledge, at: int) -> int | None:
    return int(broken[level][at]) if level in broken else None


def _parquet(run: Run, results: Results, path: Path) -> None:
    import pyarrow  # here, because it starts threads
    import pyarrow.parquet

    writer = None
    rows = _rows(run, results)
    while group := list(islice(rows, _ROW_GROUP)):
        table = pyarrow.table(dict(zip(Row._fields, map(list, zip(*group, strict=True)), strict=True)), schema=writer and writer.schema)
        writer = writer or pyarrow.parquet.ParquetWriter(path, _with_floats(table.schema))
        writer.write_table(table.cast(writer.schema))
    if writer:
        writer.close()


def _with_floats(schema: Any) -> Any:
    """A first group that leaves a column empty would make it a column of nothing."""
    import pyarrow

    whole = {"distance": pyarrow.float64(), "white": pyarrow.int64(), "gray": pyarrow.int64(), "black": pyarrow.int64()}
    for name, kind in whole.items():
        schema = schema.set(schema.get_field_index(name), pyarrow.field(name, kind))
    return schema


def _examples(results: Results, out: Path) -> None:
    """`row`, `threat`, `x` of every broken row, by threat and row. x' stands in units and layout of the data, float32."""
    broken = [ended.broken_by != UNBROKEN for ended in results.ended]
    first = np.cumsum([0, *(int(each.sum()) for each in broken)])
    with _Npz(out / "examples.npz") as file:
        file.add("row", np.concatenate([results.rows[each] for each in broken]))
        file.add("threat", np.repeat(np.arange(len(broken)), np.diff(first)))
        x = file.large("x", (int(first[-1]), *results.shape))
        for threat, rows, witness in results.witnesses():
            at = np.searchsorted(results.rows, rows)
            own = broken[threat][at]
            x[first[threat] + np.cumsum(broken[threat])[at[own]] - 1] = witness[own]


def _crafted(results: Results, out: Path) -> None:
    """A dataset: `x` the strongest point found for every row, `y` the labels, in the order of the rows."""
    with _Npz(out / "crafted.npz") as file:
        file.add("y", results.labels)
        x = file.large("x", (len(results.rows), *results.shape))
        for _, rows, witness in results.witnesses():
            x[np.searchsorted(results.rows, rows)] = witness


class _Npz:
    """An .npz whose large array is filled on disk, so that memory does not grow with the rows."""

    def __init__(self, path: Path) -> None:
        self._path, self._large = path, path.with_suffix(".npy")
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._name = ""

    def __enter__(self) -> "_Npz":
        return self

    def add(self, name: str, array: NDArray[np.int64]) -> None:
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)

    def large(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array to fill. Raises OSError now where the disk is too full for it."""
        self._name = name
        empty: NDArray[np.float32] = np.zeros((0, *shape[1:]), dtype=np.float32)
        np.save(self._large, empty)
        if 0 in shape:
            return empty
        np.lib.format.open_memmap(self._large, mode="w+", dtype=np.float32, shape=shape)
        with self._large.open("r+b") as file:  # a hole in the file would kill the process that fills it when the disk is full
            os.posix_fallocate(file.fileno(), 0, self._large.stat().st_size)
        array: NDArray[np.float32] = np.lib.format.open_memmap(self._large, mode="r+")
        return array

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._zip.write(self._large, f"{self._name}.npy")
        self._zip.close()
        self._large.unlink(missing_ok=True)

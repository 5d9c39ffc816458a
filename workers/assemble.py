"""From finished shards to the report and the files beside it."""

import itertools
import os
import platform
import shutil
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
from sparring.contract.attacks import SUITES, Knowledge, names
from sparring.contract.early import Stopped
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import (
    Cost,
    DataFacts,
    Finding,
    ModelFacts,
    Provenance,
    Report,
    Score,
    Trust,
)
from sparring.contract.runner import Order
from sparring.reports.html import html
from sparring.reports.markdown import markdown
from sparring.reports.pictures import PICTURES
from sparring.reports.rows import Row, write_csv
from sparring.workers import certified, corruptions, early, levels
from sparring.workers.bench import Facts, feasible
from sparring.workers.crew import CrewError, Trouble
from sparring.workers.gallery import gallery
from sparring.workers.shard import CLEAN, UNBROKEN, Ended, Shard, Tally, load
from sparring.workers.spare import ARITHMETIC
from sparring.workers.surrogates import Studied, learnt
from sparring.workers.threat_results import curve, minimal, threat_result
from sparring.workers.trust.level import level
from sparring.workers.trust.model_rules import of_model
from sparring.workers.trust.seen import Seen
from sparring.workers.trust.threat_rules import Outcome, under_threat

_ROW_GROUP = 100_000


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
    seen: Seen | None = None
    """What was measured on a few rows again; None where nothing is checked."""
    stopped: Stopped | None = None
    """How it ended, where it was to end early."""


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
        self.intact = all(part.intact for part in parts)
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


def write(run: Run, results: Results, digest: str) -> tuple[str, ...]:
    """Write every file of the job into its folder; returns their names.

    Raises:
        CrewError: a row is both proved to hold and broken.
    """
    out = Path(run.order.out)
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
    if (out / PICTURES).exists():
        written.append(PICTURES)
    (out / "report.html").write_text(html(report, pictures or ()))
    (out / "report.md").write_text(markdown(report))
    return tuple(written)


def compose(run: Run, results: Results, studied: dict[str, Studied]) -> Report:
    """The report of a job that attacks, from its shards."""
    order, facts = run.order, run.facts
    right = results.clean == results.labels
    clean = Score(count=int(right.sum()), total=len(right))
    tallies = [tally for ended in results.ended for tally in ended.tallies]
    findings = (*facts.findings, *early.told(run.stopped), *_findings(order.job, facts, results, tallies))
    cascaded = order.job.kind == "evaluate" and order.job.cascaded
    masked = [
        tuple(levels.masked(threat, feasible(order.job, threat, facts), ended.wins, cascaded=cascaded))
        for threat, ended in zip(order.job.threats, results.ended, strict=True)
    ]
    levelled = trust(run, results, findings, masked)
    threats = tuple(
        threat_result(order.job, facts, threat, ended, results.labels, results.clean, believed, studied)
        for threat, ended, believed in zip(order.job.threats, results.ended, levelled, strict=True)
    )
    suffered = corruptions.results(order.job, facts, results.corrupted)
    looks = clean.total + sum(result.mean.total for result in suffered) + sum(each.queries for each in studied.values())
    spent = [run.seen.model.effort, *(part.effort for part in run.seen.threats)] if run.seen else []
    return Report(
        job=order.job,
        model=_model(order, facts),
        data=_data(order, facts),
        clean=clean,
        threats=threats,
        curve=curve(clean, threats),
        minimal=tuple(minimal(order.job, facts, results.ended, right)),
        corruptions=suffered,
        stopped=run.stopped,
        warnings=(*findings, *itertools.chain(*masked)),
        cost=Cost(
            queries=sum(tally.queries for tally in tallies) + looks,
            forwards=sum(tally.forwards for tally in tallies) + looks,
            backwards=sum(tally.backwards for tally in tallies),
            wall_seconds=time.monotonic() - run.began,
            attack_seconds=sum(tally.seconds for tally in tallies),
            asked=run.asked if order.model.spec.endpoint else None,
            sent=run.sent if order.model.spec.endpoint else None,
            check_forwards=sum(part.forwards for part in spent),
            check_backwards=sum(part.backwards for part in spent),
            check_seconds=sum(part.seconds for part in spent),
        ),
        provenance=provenance(run),
    )


def trust(run: Run, results: Results, findings: Sequence[Finding], masked: Sequence[tuple[Finding, ...]]) -> Iterator[Trust]:
    """How far the number of each threat may be believed; crafted examples are no number. `masked`: of levels.masked, for each threat."""
    job, facts, seen = run.order.job, run.facts, run.seen
    if seen is None or job.kind == "craft":
        yield from (Trust() for _ in job.threats)
        return
    right = int((results.clean == results.labels).sum())
    for threat, ended, own, part in zip(job.threats, results.ended, masked, seen.threats, strict=True):
        robust = float((ended.broken_by == UNBROKEN).mean()) if len(results.rows) else 0.0
        outcome = Outcome(threat, feasible(job, threat, facts), right, ended.wins, robust, own, job.cascaded)
        model = of_model(job, threat, facts, findings, seen.model, right=right, intact=results.intact)
        yield level((*model, *under_threat(facts, outcome, part)), (*findings, *own))


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
        granule=run.facts.granule or run.tile,
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
            with self._large.open("rb") as source, self._zip.open(f"{self._name}.npy", "w", force_zip64=True) as file:
                shutil.copyfileobj(source, file, 1 << 20)
        self._zip.close()
        self._large.unlink(missing_ok=True)

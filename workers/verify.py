"""A report checked on any machine: every break it claims is looked at again, with one forward pass.

`python -P -m sparring.workers.verify report.zip` prints one JSON line and ends with 0 where all holds, 1 where something does not,
2 where it could not be checked, 4 on bad usage. What a report says stands is not searched again: an attack would have to be.
"""

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from sparring.attacks import random
from sparring.attacks.norms import ball
from sparring.attacks.problem import Goal
from sparring.contract.report import Report, ThreatResult
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.runner import Order
from sparring.reports.rows import Row, outcomes, read_csv
from sparring.storage import zips
from sparring.workers import course
from sparring.workers.bench import Bench, aim, open_bench
from sparring.workers.errors import Refused, shown

HOLDS, FAILS, UNCHECKED = 0, 1, 2
BORDERLINE = 1e-4
"""Margins below this share of the range of the scores may fall to either side on another machine."""
CHUNK = 1024
MOST = 32 << 30
"""Bytes that may come out of the zip."""
SHOWN = 10
_NEEDED = {"manifest.json", "report.json", "rows.csv", "examples.npz"}


class Tampered(Exception):
    """Something in the file contradicts something else in it."""


class Checked(NamedTuple):
    """What became of the claims about one threat."""

    threat: str
    claimed: int
    confirmed: int
    borderline: int
    refuted: tuple[str, ...]
    """Why, for the first of them."""
    failed: int


class Witnesses(NamedTuple):
    """examples.npz."""

    row: NDArray[np.int64]
    threat: NDArray[np.int64]
    x: NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sparring.workers.verify", description="Check every break a report claims.")
    parser.add_argument("zip", type=Path)
    path: Path = parser.parse_args(arguments).zip
    try:
        with tempfile.TemporaryDirectory(prefix="sparring-verify-") as folder:
            told = _checked(path, Path(folder))
    except Tampered as error:
        told = {"code": FAILS, "message": str(error), "hint": "The file is not as it was written: do not believe it."}
    except Refused as error:
        told = {"code": UNCHECKED, "message": error.reason.message, "hint": error.reason.hint}
    except (OSError, MemoryError) as error:
        told = {"code": UNCHECKED, "message": f"{path} cannot be checked: {error}", "hint": ""}
    print(json.dumps(told))
    return int(told["code"])


def _checked(path: Path, folder: Path) -> dict[str, Any]:
    files = _unpacked(path, folder)
    try:
        report = Report.model_validate_json((folder / "report.json").read_bytes())
        with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
            rows = read_csv(file)
        outcomes(rows, report)
    except (ValidationError, ValueError, csv.Error) as error:
        raise Tampered(f"the report and its rows contradict each other: {str(error).splitlines()[0]}") from error
    bench = _bench(report, folder, files)
    witnesses = _witnesses(folder / "examples.npz", bench, len(report.threats))
    total = report.clean.total
    clean = _clean(bench, rows[:total])
    threats = [_threat(bench, report, at, rows[at * total : (at + 1) * total], witnesses) for at in range(len(report.threats))]
    every = [clean, *threats]
    failed = sum(each.failed for each in every)
    return {
        "code": FAILS if failed else HOLDS,
        "message": f"{failed} claims do not hold" if failed else "every claim holds",
        "hint": "Do not believe this report." if failed else "",
        "model": report.model.sha256,
        "data": report.data.sha256,
        "judge": bench.loaded.judge,
        "checks": [each._asdict() for each in every],
    }


def _unpacked(path: Path, folder: Path) -> dict[str, str]:
    """The members as files, and their digests by name; each must be in the manifest and as it says."""
    _check_kind(path)
    try:
        members = zips.directory(path)
        zips.verify(path, members, frozenset({ZIP_STORED, ZIP_DEFLATED}))
        if sum(member.file_size for member in members.values()) > MOST:
            raise Tampered(f"more than {MOST >> 30} GiB would come out of the zip")
        digests = {}
        with ZipFile(path) as archive:
            for name, member in members.items():
                if "/" in name:
                    raise Tampered(f"{name!r} is no file of a report")
                digests[name] = _written(zips.stream(archive, member), folder / name)
    except zips.Rejected as error:
        raise Tampered(error.message) from error
    if missing := sorted(_NEEDED - digests.keys()):
        raise Tampered(f"{missing[0]} is missing: this is not the whole of a report.zip")
    try:
        listed = json.loads((folder / "manifest.json").read_bytes())["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise Tampered(f"manifest.json is no manifest: {error}") from error
    own = {name: digest for name, digest in digests.items() if name != "manifest.json"}
    if other := sorted(name for name in own.keys() | listed.keys() if own.get(name) != listed.get(name)):
        raise Tampered(f"{', '.join(other)} is not what the manifest lists")
    return own


def _check_kind(path: Path) -> None:
    """Refused for what never was a report.zip: neither report nor manifest is in it, or it is no zip at all."""
    with path.open("rb") as file:
        begins = file.read(4)
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, ValueError, NotImplementedError):
        names = ["report.json"] if begins == b"PK\3\4" else []  # one that is cut off is looked at more closely
    if not {"manifest.json", "report.json"} & set(names):
        held = f": it holds {', '.join(map(shown, sorted(names)[:3]))}" if names else ""
        hint = "Give a report.zip, as `sparring report export JOB -o report.zip` writes it."
        raise Refused("unsupported", f"{path} is no report.zip{held}", hint=hint)


def _written(chunks: Iterator[bytes], path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _bench(report: Report, folder: Path, files: dict[str, str]) -> Bench:
    """Model and data as the evaluation had them, the judge ready to be asked."""
    if report.model.format == "endpoint":
        raise Refused("unsupported", "the model is an endpoint: it cannot be asked from here", hint="Run the evaluation again instead.")
    paths = {}
    for what, facts in (("model", report.model), ("data", report.data)):
        name = f"{what}.{facts.format}"
        if files.get(name) != facts.sha256:
            raise Tampered(f"{name} is not the {what} that the report names")
        paths[what] = folder / name
    now = datetime.now(UTC)
    common = ("id", "name", "sha256", "format", "spec")
    order = Order(
        job=report.job,
        model=ModelInfo(size=paths["model"].stat().st_size, created=now, **{name: getattr(report.model, name) for name in common}),
        model_path=str(paths["model"]),
        data=DatasetInfo(size=paths["data"].stat().st_size, created=now, **{name: getattr(report.data, name) for name in common}),
        data_path=str(paths["data"]),
        cache=str(folder / "cache"),
        out=str(folder),
    )
    device, tile = torch.device("cpu"), max(1, report.provenance.tile)
    bench = open_bench(order, device, tile, None)
    codes = {finding.code for finding in report.warnings}
    if codes & {"not_deterministic", "probabilities"}:
        said = {"draws": "not_deterministic" in codes, "probabilities": "probabilities" in codes}
        bench.model, bench.target, bench.search = aim(order, bench.loaded, bench.data, device, tile, **said)
    return bench


def _witnesses(path: Path, bench: Bench, threats: int) -> Witnesses:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = Witnesses(file["row"], file["threat"], file["x"])
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise Tampered(f"examples.npz cannot be read: {error}") from error
    shapes = found.row.shape == found.threat.shape == found.x.shape[:1] and found.x.shape[1:] == bench.data.row_shape
    kinds = found.row.dtype == found.threat.dtype == np.int64 and found.x.dtype == np.float32
    if not shapes or not kinds or not np.isin(found.threat, np.arange(threats)).all():
        raise Tampered("examples.npz does not hold row, threat and x of the report's rows")
    return found


def _clean(bench: Bench, rows: Sequence[Row]) -> Checked:
    """Every row as it is: what the report says is predicted there."""
    index = _index(bench, rows)
    if bench.data.labels is not None and not np.array_equal(bench.data.labels[index], [row.label for row in rows]):
        raise Tampered("the labels of rows.csv are not those of the data")
    scores = _scores(bench, bench.rows(torch.from_numpy(index)))
    claimed = torch.tensor([row.clean_prediction for row in rows])
    return _counted("as they are", rows, *_predicted(scores, claimed))


def _index(bench: Bench, rows: Sequence[Row]) -> NDArray[np.int64]:
    index = np.array([row.row for row in rows], dtype=np.int64)
    if len(np.unique(index)) != len(index) or not ((index >= 0) & (index < len(bench.data))).all():
        raise Tampered("rows.csv names rows twice, or rows that the data do not have")
    return index


def _threat(bench: Bench, report: Report, at: int, rows: Sequence[Row], witnesses: Witnesses) -> Checked:
    """Every break under one threat: inside ball and bounds, and taken for something else."""
    result = report.threats[at]
    name = f"{result.threat.norm} {result.threat.eps}{' targeted' if result.threat.targeted else ''}"
    broken = [row for row in rows if row.broken]
    mine = np.flatnonzero(witnesses.threat == at)
    order = mine[np.argsort(witnesses.row[mine], kind="stable")]
    broken.sort(key=lambda row: row.row)
    if not np.array_equal(witnesses.row[order], [row.row for row in broken]):
        raise Tampered(f"under {name} examples.npz does not hold exactly the rows that rows.csv calls broken")
    checks = [
        _breaks(bench, report, result, broken[start : start + CHUNK], torch.from_numpy(witnesses.x[order[start : start + CHUNK]]))
        for start in range(0, len(broken), CHUNK)
    ]
    if not checks:
        return Checked(name, 0, 0, 0, (), 0)
    sure, unsure = (torch.cat(parts) for parts in zip(*checks, strict=True))
    return _counted(name, broken, sure, unsure)


def _breaks(bench: Bench, report: Report, result: ThreatResult, rows: Sequence[Row], x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) bool each: breaks that are sure, and those too close to call."""
    index = torch.tensor([row.row for row in rows])
    original, scores = bench.rows(index), _scores(bench, x)
    eps = torch.tensor([0.0 if row.broken_by == "clean" else result.threat.radius for row in rows], dtype=torch.float64)
    place = ball(result.threat.norm, original, eps, bench.data.bounds)
    told = torch.tensor([float("nan") if row.distance is None else row.distance for row in rows], dtype=torch.float64)
    inside = place.contains(x) & torch.isclose(place.distance(x), told, rtol=1e-6, atol=1e-12)
    labels = torch.tensor([row.label for row in rows])
    clean = torch.tensor([row.broken_by == "clean" for row in rows])
    margin = Goal(labels).margin(scores)
    if result.threat.targeted:
        keys = random.fork(random.keys(report.job.seed, index), course.TARGETS)
        drawn = random.integers(keys, scores.shape[1] - 1)
        aimed = Goal(torch.where(drawn >= labels, drawn + 1, drawn), targeted=True).margin(scores)
        margin = torch.where(clean, margin, aimed)
    silent = clean & ~torch.isfinite(scores).all(1)  # a clean row without an answer counts as an error
    close = margin.abs() <= BORDERLINE * _range(scores)
    seen, near = _predicted(scores, torch.tensor([row.prediction for row in rows]))
    won, told_so = (margin > 0) | silent, seen | near
    return inside & told_so & won & ~close, inside & told_so & close & ~silent


def _predicted(scores: Tensor, claimed: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) bool each: rows that are predicted as claimed, and those where it is too close to call. -1 claims no finite answer."""
    silent = ~torch.isfinite(scores).all(1)
    legal = (claimed >= 0) & (claimed < scores.shape[1])
    own = scores.gather(1, claimed.clamp(0, scores.shape[1] - 1)[:, None]).squeeze(1)
    gap = scores.amax(1) - own
    same = torch.where(silent, claimed == -1, legal & (scores.argmax(1) == claimed))
    return same, ~same & ~silent & legal & (gap <= BORDERLINE * _range(scores))


def _range(scores: Tensor) -> Tensor:
    return scores.amax(1) - scores.amin(1)


def _scores(bench: Bench, x: Tensor) -> Tensor:
    return torch.cat([bench.target.verdict(part) for part in torch.split(x, CHUNK)])


def _counted(name: str, rows: Sequence[Row], sure: Tensor, unsure: Tensor) -> Checked:
    wrong = torch.nonzero(~sure & ~unsure).flatten().tolist()
    return Checked(
        threat=name,
        claimed=len(rows),
        confirmed=int(sure.sum()),
        borderline=int((unsure & ~sure).sum()),
        refuted=tuple(f"row {rows[at].row}" for at in wrong[:SHOWN]),
        failed=len(wrong),
    )


if __name__ == "__main__":
    sys.exit(main())

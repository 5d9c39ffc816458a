"""One shard: some rows, through every threat and attack of the job, judged, and written down as the checkpoint."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLEAN, UNBROKEN = -2, -1
"""`broken_by` of a row that was wrong from the start, and of one nothing broke; else the attack's index."""


class Tally(NamedTuple):
    """What one attack did on a shard under one threat; sums over shards make an AttackResult."""

    entered: int
    broken: int
    carried: int
    left: int
    first: int
    queries: int
    forwards: int
    backwards: int
    seconds: float
    refused: int
    """Claimed successes the last check refused; 0 unless something is wrong."""
    faulty: int
    """Rows on which the model answered NaN or infinity at some point."""
    divergence: float = 0.0
    """Sum over the rows tried of KL(p(x) || p(x')) in nats, for attacks that measure it."""


class Ended(NamedTuple):
    """A shard's rows under one threat. Everything is in the order of the shard's rows."""

    broken_by: NDArray[np.int16]
    prediction: NDArray[np.int64]
    distance: NDArray[np.float64]
    queries: NDArray[np.int64]
    witness: NDArray[np.float32]
    """x' (W, …) of the broken rows, clean errors included, in the rows' order; of every row for a Craft job."""
    reach: NDArray[np.float64]
    """(rows, U): the smallest change that each attack without an eps of its own found; infinite where none, 0 for clean errors."""
    proved: NDArray[np.bool_]
    """Rows that a bound proved robust; they were not attacked inside the ball."""
    wins: NDArray[np.bool_]
    """(rows, attacks): which attacks broke the row; in a cascade at most one did."""
    fell: NDArray[np.int64]
    """(rows, attacks): the queries after which an attack had broken a row; 0 where it did not, or did not stop there."""
    tallies: tuple[Tally, ...]


_ARRAYS = ("broken_by", "prediction", "distance", "queries", "witness", "reach", "proved", "wins", "fell")


class Shard(NamedTuple):
    """A finished shard."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.int64]
    """Predictions on the clean rows."""
    ended: tuple[Ended, ...]
    corrupted: NDArray[np.bool_]
    """(rows, types, severities): whether the row is still right under a corruption."""
    intact: bool = True
    """The model was afterwards what it was when it was loaded."""


def save(path: Path, shard: Shard, plan: str) -> None:
    """Write a shard so that it is whole or absent. `plan` is the digest of what it belongs to."""
    arrays: dict[str, NDArray[Any]] = {"rows": shard.rows, "labels": shard.labels, "clean": shard.clean, "corrupted": shard.corrupted}
    for at, ended in enumerate(shard.ended):
        arrays |= {f"{at}.{field}": getattr(ended, field) for field in _ARRAYS}
    meta = {"plan": plan, "tallies": [ended.tallies for ended in shard.ended], "intact": shard.intact}
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
        return Shard(arrays["rows"], arrays["labels"], arrays["clean"], ended, arrays["corrupted"], meta["intact"])
    except Exception:  # zipfile and numpy raise almost anything on damaged bytes, and all of it means the same
        return None

"""What earlier evaluations kept: the points that broke their models, found by the row of the data they belong to."""

import hashlib
import struct
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparring.attacks.replay import Known
from sparring.contract.runner import Earlier
from sparring.contract.threat import Threat
from sparring.workers.errors import Refused

_LOCAL_HEADER = 30  # bytes of a zip's header before a member, without its name and extra field


class _Kept(NamedTuple):
    """The points of one evaluation under one of its threats, by rising row."""

    norm: str
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    """Where in x."""
    x: NDArray[np.float32]


class Past:
    """Points of all earlier evaluations of a job."""

    def __init__(self, earlier: Sequence[Earlier], shape: tuple[int, ...]) -> None:
        """`shape` is that of a row. Raises Refused for a file that is not as an evaluation leaves it."""
        self._kept = [kept for each in earlier for kept in _opened(each, shape)]

    def known(self, threat: Threat, index: NDArray[np.int64], like: Tensor) -> list[Known]:
        """Points of rows `index` of the data, as `like` (B, …) holds them, each point of a row once. Nothing is fetched yet."""
        found: list[Known] = []
        seen: set[tuple[int, bytes]] = set()
        for kept in (each for each in self._kept if each.norm == threat.norm and len(each.row)):
            at = np.minimum(np.searchsorted(kept.row, index), len(kept.row) - 1)
            there = kept.row[at] == index
            for row in np.flatnonzero(there):
                mark = int(row), hashlib.blake2b(kept.x[kept.place[at[row]]].tobytes(), digest_size=16).digest()
                there[row] = mark not in seen
                seen.add(mark)
            if there.any():
                found.append(Known(torch.from_numpy(there).to(like.device), partial(_points, kept, kept.place[at], there, like)))
        return found


def _points(kept: _Kept, place: NDArray[np.int64], there: NDArray[np.bool_], like: Tensor) -> Tensor:
    x = like.clone()
    x[torch.from_numpy(there).to(x.device)] = torch.from_numpy(np.ascontiguousarray(kept.x[place[there]])).to(x)
    return x


def _opened(earlier: Earlier, shape: tuple[int, ...]) -> Iterator[_Kept]:
    try:
        with np.load(earlier.path, allow_pickle=False) as file:
            row, threat = file["row"], file["threat"]
        x = _mapped(Path(earlier.path))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, struct.error) as error:
        raise _broken(earlier) from error
    if not (row.shape == threat.shape == x.shape[:1] and x.shape[1:] == shape and x.dtype == np.float32):
        raise _broken(earlier)
    for at, each in enumerate(earlier.threats):
        mine = np.flatnonzero(threat == at)
        order = mine[np.argsort(row[mine], kind="stable")]
        yield _Kept(each.norm, row[order], order, x)


def _mapped(path: Path) -> NDArray[np.float32]:
    """X as it lies in the file, which holds it as it is: memory does not grow with the points."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("x.npy")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
        file.seek(name + extra, 1)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if member.compress_type != zipfile.ZIP_STORED or dtype.hasobject:
            raise ValueError("x is not stored as it is")
        start = file.tell()
    empty: NDArray[np.float32] = np.zeros(shape, dtype) if 0 in shape else np.memmap(path, dtype, "r", start, shape)
    return empty


def _broken(earlier: Earlier) -> Refused:
    hint = "Name other evaluations in replay, or none."
    return Refused("artifact_corrupt", f"what {earlier.job} kept of its broken rows cannot be read", hint=hint)

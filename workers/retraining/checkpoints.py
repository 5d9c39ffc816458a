"""States of a training on disk: each whole or absent, its digest in its name; the newest of those that are sound is gone on from.

Beside the state that a training goes on from lies that of its best epoch so far.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from sparring.defenses.state import State

Kind = Literal["state", "best"]
_NAME = re.compile(r"(\d{10})-([0-9a-f]{64})\.(state|best)")


class Checkpoint(NamedTuple):
    """A state on disk."""

    number: int
    digest: str
    path: Path


def save(folder: Path, number: int, state: State, kind: Kind = "state") -> str:
    """Write a state; returns its digest. Of each kind the two newest are kept."""
    temporary = folder / "state.tmp"
    state.save(temporary)
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    temporary.replace(folder / f"{number:010d}-{digest}.{kind}")
    _settle(folder)
    for old in found(folder, kind)[2:]:
        old.path.unlink(missing_ok=True)
    return digest


def found(folder: Path, kind: Kind = "state") -> list[Checkpoint]:
    """What lies there, the newest first."""
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)) and match[3] == kind]
    return sorted((Checkpoint(int(match[1]), match[2], path) for match, path in named), reverse=True)


def load(checkpoint: Checkpoint) -> State | None:
    """The state; None if the file is damaged."""
    try:
        with checkpoint.path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != checkpoint.digest:
                return None
        return State.load(checkpoint.path)
    except (OSError, ValueError):
        return None


def named(folder: Path, digest: str) -> State | None:
    """The best state of this digest, if it is there and sound."""
    return next((load(each) for each in found(folder, "best") if each.digest == digest), None)


def _settle(folder: Path) -> None:
    """See to it that a rename outlives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

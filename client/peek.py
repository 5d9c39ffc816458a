"""What a file of the user's own plainly lacks, found before a job fails for it. What cannot be told here the service finds out."""

import re
import zipfile
import zlib
from pathlib import Path
from typing import get_args

from sparring.contract.resources import ModelInfo
from sparring.contract.specs import Arch, DataSpec
from sparring.errors import UsageProblem

_HEADER = 4096
"""Bytes of a .npy in which its type stands."""
_FAULTS = (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError)


def _type(path: Path) -> str:
    """Of the rows of an .npz, as numpy writes it: `f4`; empty where that cannot be told."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("x.npy") as member:
            start = member.read(_HEADER)
    except _FAULTS:
        return ""
    found = re.search(rb"'descr': '[<>|=]?([a-zA-Z]\d+)'", start)
    return found[1].decode() if found and start.startswith(b"\x93NUMPY") else ""


_BY_FLAG = "--bounds 0,1 for images in [0, 1], --bounds none where any real number is legal"


def check_bounds(path: Path, spec: DataSpec | None, how: str | None = None) -> None:
    """UsageProblem for a dataset whose numbers mean nothing without bounds that nobody declared; `how` says how, unless by flags."""
    spec = spec or DataSpec()
    stored = _type(path)
    if spec.bounds is not None or not stored or (stored == "u1" and spec.scale in (None, 1 / 255)):
        return
    raise UsageProblem(
        f"{path} holds {stored} values, whose lowest and highest legal value are not known",
        f"Declare them after scaling: {how or _BY_FLAG}",
    )


def lacks_architecture(info: ModelInfo) -> tuple[str, str]:
    """What is wrong with an upload of bare weights without an architecture, and what to do; both empty where nothing is."""
    if info.format not in ("safetensors", "state_dict") or info.spec.arch:
        return "", ""
    known = ", ".join(get_args(Arch))
    hint = f"Give --arch with the file ({known}), or make a .pt2 of it with `sparring export` if it is another"
    return f"{info.name} holds weights, but not what to do with them: no architecture is declared", hint

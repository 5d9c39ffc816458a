"""What a file of the user's own plainly lacks, found before a job fails for it. What cannot be told here the service finds out."""

import zipfile
import zlib
from pathlib import Path
from typing import get_args

from sparring.contract.resources import ModelInfo
from sparring.contract.specs import NPY_HEADER, Arch, DataSpec
from sparring.errors import UsageProblem

_FAULTS = (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError)


_BY_FLAG = "--bounds 0,1 for images in [0, 1], --bounds none where any real number is legal"


def check_bounds(path: Path, spec: DataSpec | None, how: str | None = None) -> None:
    """UsageProblem for a dataset whose numbers mean nothing without bounds that nobody declared; `how` says how, unless by flags."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("x.npy") as member:
            start = member.read(NPY_HEADER)
    except _FAULTS:
        return
    if stored := (spec or DataSpec()).lacks_bounds(start):
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

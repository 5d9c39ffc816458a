"""What lies at a path the user named, told without a traceback where one may not look."""

import os
import stat
from pathlib import Path
from typing import Literal

from sparring.errors import UsageProblem

Kind = Literal["file", "folder", "nothing", "other"]


def kind_of(path: Path, said: str = "") -> Kind:
    """What a path leads to.

    Args:
        path: as the user wrote it.
        said: what leads the message, such as `-o `.

    Raises:
        UsageProblem: a folder on the way may not be entered, a name is too long, links run in a circle.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return "nothing"
    except OSError as error:
        hint = "Check its permissions and those of the folders it lies in" if isinstance(error, PermissionError) else ""
        raise UsageProblem(f"{said}{path} cannot be looked at: {error.strerror}", hint) from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def absent(found: Kind) -> str:
    """Why what was found is not the file that was asked for."""
    return {"folder": "is a folder", "other": "is no plain file"}.get(found, "does not exist")


def check_readable(path: Path, said: str = "") -> None:
    """UsageProblem unless `path` is a file that may be read and holds something."""
    found = kind_of(path, said)
    if found != "file":
        raise UsageProblem(f"{said}{path} {absent(found)}", "Give a file")
    if not os.access(path, os.R_OK):
        raise UsageProblem(f"{said}{path} cannot be read: Permission denied", "Check its permissions")
    if not path.stat().st_size:
        raise UsageProblem(f"{said}{path} is empty", "Write the file again, and look at what made it")


def check_folder(path: Path, said: str = "") -> None:
    """UsageProblem unless a file may be made in the folder that `path` lies in."""
    folder = path.parent
    if kind_of(folder, said) != "folder":
        raise UsageProblem(f"{said}{path}: the folder {folder} does not exist", f"Make it first: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageProblem(f"{said}{path}: the folder {folder} cannot be written to", "Name another folder, or change its permissions")

"""The one way for a worker to say that an upload or a job cannot be served, and why."""

import errno
import re
import traceback
from pathlib import Path

from sparring.contract.states import Code, Reason

MAX_MESSAGE = 4000


class Refused(Exception):
    """What the user gave cannot be used. `reason` travels to them: what was wrong, where, and what to do."""

    def __init__(self, code: Code, message: str, *, hint: str = "", detail: str = "") -> None:
        """Build the reason; `detail` is the finer stable code, such as `unsupported_op`. Overlong messages are cut."""
        super().__init__(code, message, hint, detail)
        self.reason = Reason(code=code, message=message[:MAX_MESSAGE], hint=hint[:MAX_MESSAGE], detail=detail)

    def __str__(self) -> str:
        """Message and hint in one line."""
        return f"{self.reason.message}. {self.reason.hint}" if self.reason.hint else self.reason.message


def shown(given: object, limit: int = 80) -> str:
    """A stranger's string as it may stand in a message: quoted, printable, short."""
    text = ascii(given)
    return text if len(text) <= limit else f"{text[:limit]}…"


def unexpected(error: Exception) -> Reason:
    """What to tell of a fault nobody foresaw: its kind and place in the code, and never where files lie on the server."""
    if isinstance(error, OSError):
        return _of_files(error)
    if isinstance(error, MemoryError):
        hint = "Use a machine with more memory, or ask for fewer rows or threats."
        return Reason(code="out_of_memory", message="Memory ran out.", hint=hint)
    text = without_folders(str(error).partition("\n")[0])
    where = traceback.extract_tb(error.__traceback__)[-1:]
    return Reason(
        code="internal",
        message=f"The job stopped on an unexpected {type(error).__name__}: {text}"[:MAX_MESSAGE],
        hint="This is a fault of the service, not of the upload; please report it with the worker's log.",
        detail="".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in where),
    )


def _of_files(error: OSError) -> Reason:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = error.strerror or without_folders(str(error))
    name = f" ({Path(error.filename).name})" if isinstance(error.filename, str) else ""
    return Reason(
        code="disk_full" if full else "internal",
        message=f"Files of the job could not be read or written: {text}{name}"[:MAX_MESSAGE],
        hint="Free some space in the data folder, then retry the job." if full else "Look at the worker's log and the data folder.",
    )


def without_folders(text: str) -> str:
    """The text with only the last part of every absolute path left in it."""
    return re.sub(r"(?<![\w.])(?:/[^/\s'\":,]+)+/([^/\s'\":,]*)", r"\1", text)

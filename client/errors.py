"""What can go wrong for a user of the SDK or the command line: each error says what was wrong and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class SparringError(Exception):
    """No report could be made."""

    exit_code = 2
    """What the command line ends with."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageProblem(SparringError):
    """The caller asked for something that makes no sense."""

    exit_code = 4


class ServiceAway(SparringError):
    """The service cannot be reached, or went away."""


class JobFailed(SparringError):
    """The job ended without a report."""

    def __init__(self, message: str, hint: str = "", *, job: str, code: str, detail: str = "") -> None:
        super().__init__(message, hint)
        self.job = job
        self.code = code
        """Of the job's reason, such as `bad_model`; its state where it has no reason."""
        self.detail = detail
        """The reason's finer code, such as `labels_out_of_range`; empty where it has none."""


class ApiError(SparringError):
    """The service refused a request (RFC 9457 problem details)."""

    def __init__(self, status: int, type: str, title: str, detail: str, problems: Sequence[Mapping[str, Any]] = (), hint: str = "") -> None:
        faults = [f"{fault.get('pointer', '')}: {fault.get('message', '')}" for fault in problems[1:]]
        super().__init__("; ".join([detail or title or f"The service answered {status}", *faults]), hint)
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.problems = tuple(problems)
        """One object for each fault: `where`, JSON `pointer`, `message`."""

    @property
    def code(self) -> str:
        """The last part of the stable type, such as `not-found`."""
        return self.type.rpartition(":")[2]

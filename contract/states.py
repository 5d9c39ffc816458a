"""Where a job stands, how far it is, and why it ended."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.base import Frozen

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "timed_out"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})

Code = Literal[
    "worker_lost",
    "out_of_memory",
    "timeout",
    "bad_model",
    "bad_data",
    "unsupported",
    "cancelled_by_user",
    "artifact_corrupt",
    "disk_full",
    "endpoint_failed",
    "target_forbidden",
    "budget_spent",
    "internal",
]


class Reason(Frozen):
    """Why a job did not succeed: what was wrong, and what to do about it."""

    code: Code
    message: str
    hint: str = ""
    detail: str = ""
    """A finer stable code, such as `unsupported_op` or `labels_out_of_range`."""


class Progress(Frozen):
    """How far a running job is. `done` and `total` count row-attacks: one row, one threat, one attack; or one row and one corruption."""

    phase: Annotated[str, Field(max_length=40)] = ""
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0
    rate: float = 0.0
    """Row-attacks per second."""
    eta: float | None = None
    """Seconds still to go; unknown at first."""

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


class Learnt(Frozen):
    """A model in training, at the end of an epoch."""

    epoch: Annotated[int, Field(ge=0)]
    loss: float | None = None
    """Mean over the epoch, in nats."""
    clean: float | None = None
    """Share of the validation rows that are right."""
    robust: float | None = None
    """Share of them that are right under PGD, whatever the threat."""


class Progress(Frozen):
    """How far a running job is.

    `done` and `total` count row-attacks: one row, one threat, one attack; or one row and one corruption. While a model is trained
    they count rows that went forward and back through it.
    """

    phase: Annotated[str, Field(max_length=40)] = ""
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0
    rate: float = 0.0
    """Row-attacks per second."""
    eta: float | None = None
    """Seconds still to go; unknown at first."""
    curves: dict[str, tuple[Learnt, ...]] = Field(default_factory=dict)
    """Of a job that trains: how each defense has done so far, at some forty of its epochs, the last among them."""

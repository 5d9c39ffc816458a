"""The talk between a horse, which holds the credentials, and its runner, which holds none: one JSON object a line."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from sparring.contract.base import Frozen
from sparring.contract.jobs import Job
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.states import Progress, Reason


class Other(Frozen):
    """Something else the job needs."""

    info: ModelInfo | DatasetInfo
    path: str
    """The verified blob, read-only."""


class Order(Frozen):
    """Horse to runner, once: everything one job needs."""

    kind: Literal["order"] = "order"
    job: Job
    model: ModelInfo
    model_path: str
    """The verified blob, read-only."""
    data: DatasetInfo
    data_path: str
    others: dict[str, Other] = Field(default_factory=dict)
    """What else the job needs, by the name it has there."""
    cache: str
    """Folder of unpacked datasets by sha256, shared by runners."""
    out: str
    """The one folder the runner may write; holds the shards of an earlier attempt, if any."""


class Told(Frozen):
    """Runner to horse: progress."""

    kind: Literal["progress"] = "progress"
    progress: Progress


class Done(Frozen):
    """Runner to horse, last: the files it left in `out`, by name."""

    kind: Literal["done"] = "done"
    files: tuple[str, ...]


class Failed(Frozen):
    """Runner to horse, last: why there is no report."""

    kind: Literal["failed"] = "failed"
    reason: Reason


Message = Annotated[Told | Done | Failed, Field(discriminator="kind")]
MESSAGE: TypeAdapter[Told | Done | Failed] = TypeAdapter(Message)

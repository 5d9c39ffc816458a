"""The talk between a horse, which holds the credentials, and its runner, which holds none: one JSON object a line."""

import math
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from sparring.contract.base import Frozen
from sparring.contract.jobs import AttackJob
from sparring.contract.resources import DatasetInfo, ModelInfo
from sparring.contract.retrain import Retrain
from sparring.contract.states import Progress, Reason
from sparring.contract.threat import Threat


class Other(Frozen):
    """Something else the job needs."""

    info: ModelInfo | DatasetInfo
    path: str
    """The verified blob, read-only."""


class Earlier(Frozen):
    """What an earlier evaluation of the same data kept of its broken rows."""

    job: str
    threats: tuple[Threat, ...]
    """Which the file counts."""
    sha256: str
    path: str
    """The verified blob, read-only."""


class Provisions(Frozen):
    """What every job needs."""

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


class Order(Provisions):
    """Horse to runner, once: everything one job that attacks needs."""

    kind: Literal["order"] = "order"
    job: AttackJob
    earlier: tuple[Earlier, ...] = ()
    """Of the evaluations that are replayed."""


class TrainingOrder(Provisions):
    """Horse to runner, once: everything one job that trains needs."""

    kind: Literal["training"] = "training"
    job: Retrain


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


class Ask(Frozen):
    """Runner to horse: a question to the endpoint, of as many rows as one request carries."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["ask"] = "ask"
    id: Annotated[int, Field(ge=0)]
    look: Annotated[int, Field(ge=0, le=255)]
    """A row that was answered before under the same look is answered from memory."""
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=8)]
    """Of a row."""
    rows: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=1024)]
    """Numbers of each, as little-endian float32."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(len(row) != 4 * math.prod(self.shape) for row in self.rows):
            raise ValueError("a row has not as many numbers as its shape says")
        return self


class Answer(Frozen):
    """Horse to runner: what the endpoint gives for each row of a question."""

    kind: Literal["answer"] = "answer"
    id: int
    rows: tuple[tuple[float, ...], ...]
    """Scores of each, or its label alone."""
    asked: int
    """Rows asked so far, in all attempts of the job."""
    sent: int
    """Requests sent so far."""


class Unanswered(Frozen):
    """Horse to runner: why there is no answer, and will be none."""

    kind: Literal["unanswered"] = "unanswered"
    id: int
    reason: Reason


AnyOrder = Order | TrainingOrder
ORDER: TypeAdapter[Order | TrainingOrder] = TypeAdapter(Annotated[AnyOrder, Field(discriminator="kind")])
Message = Annotated[Told | Done | Failed | Ask, Field(discriminator="kind")]
MESSAGE: TypeAdapter[Told | Done | Failed | Ask] = TypeAdapter(Message)
Reply = Annotated[Answer | Unanswered, Field(discriminator="kind")]
REPLY: TypeAdapter[Answer | Unanswered] = TypeAdapter(Reply)

"""What the HTTP API answers with."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field

from sparring.contract.attacks import Access, Knowledge
from sparring.contract.base import Frozen
from sparring.contract.defenses.base import Family
from sparring.contract.jobs import Job
from sparring.contract.retrained import Lineage
from sparring.contract.specs import DataFormat, DataSpec, ModelFormat, ModelSpec
from sparring.contract.states import Progress, Reason, State
from sparring.contract.threat import Norm

NAME = r"^[\w .+\-]{1,100}$"

Name = Annotated[str, Field(pattern=NAME)]
"""Letters, digits, space and `. _ + -`, at most 100 characters."""


class ModelInfo(Frozen):
    """An uploaded model."""

    id: str
    name: str
    sha256: str
    size: int
    """Bytes."""
    format: ModelFormat
    spec: ModelSpec
    created: datetime
    lineage: Lineage | None = None
    """Where it comes from, if a job made it."""


class DatasetInfo(Frozen):
    """An uploaded dataset."""

    id: str
    name: str
    sha256: str
    size: int
    format: DataFormat
    spec: DataSpec
    created: datetime


class ArtifactInfo(Frozen):
    """A file a job left."""

    name: str
    sha256: str
    size: int
    media_type: str


class JobInfo(Frozen):
    """A job and where it stands."""

    id: str
    state: State
    progress: Progress
    attempt: int
    reason: Reason | None = None
    note: str = ""
    """What keeps it from moving, such as `no live worker on sparring:cpu`."""
    job: Job
    key: str | None = None
    """Idempotency key it was submitted under."""
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    artifacts: tuple[ArtifactInfo, ...] = ()
    models: tuple[str, ...] = ()
    """Ids of the models it made, the one that did best on the validation rows first."""


class EventInfo(Frozen):
    """One thing that happened to a job; `id` grows, and is the SSE id."""

    id: int
    job: str
    time: datetime
    kind: Literal["state", "progress"]
    state: State
    attempt: int
    progress: Progress
    reason: Reason | None = None


class WorkerInfo(Frozen):
    """A worker that was seen lately."""

    name: str
    queues: tuple[str, ...]
    host: str
    pid: int
    state: str
    job: str | None = None
    last_seen: datetime


class KeyInfo(Frozen):
    """An API key, without its secret."""

    id: str
    name: str
    created: datetime
    last_used: datetime | None = None
    expires: datetime | None = None


class NewKey(KeyInfo):
    """An API key at its creation: the only time its secret is shown."""

    key: str


class AttackInfo(Frozen):
    """An attack of the contract: what it is, and the JSON Schema of its settings."""

    kind: str
    title: str
    summary: str
    description: tuple[str, ...]
    """The summary, and whatever else is to be said, in paragraphs."""
    paper: str
    access: Access
    knowledge: Knowledge
    norms: tuple[Norm, ...]
    bounded: bool
    """It searches inside a given eps (as against looking for the smallest one)."""
    targetable: bool
    """It can be asked to reach a class, and not only to leave one."""
    settings: dict[str, Any]


class DefenseInfo(Frozen):
    """A defense of the contract: what it is, and the JSON Schema of its settings."""

    kind: str
    title: str
    summary: str
    description: tuple[str, ...]
    """The summary, and whatever else is to be said, in paragraphs."""
    paper: str
    family: Family
    gradients: int
    """Times each row goes forward and back through the model in one epoch, at the defaults; plain training is 1."""
    labelled: bool
    """It needs labels."""
    unlabelled: bool
    """It learns from rows without labels too, where there are any."""
    settings: dict[str, Any]


class SuiteInfo(Frozen):
    """A pinned list of attacks."""

    name: str
    version: str
    purpose: str
    cascade: bool
    """Unless the job says otherwise, an attack sees only the rows that those before it left standing."""
    attacks: tuple[dict[str, Any], ...]
    """In the order they are run, every setting written out."""


T = TypeVar("T")


class Page(Frozen, Generic[T]):
    """One page of a list; `next_cursor` asks for the next one."""

    items: tuple[T, ...]
    next_cursor: str | None = None

"""The tables. Times are seconds since 1970 by the database's clock; specs, jobs, progress and reasons are the contract's JSON.

Of a job: `key` is its idempotency key, `body` the Job as it was submitted, `attempt` the fencing number, `lost` how many workers it
has lost, `cancel` says that it is to be cancelled while it runs, and at the time `lease` it is taken from its worker.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

DEFAULT_PROJECT = "default"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _project() -> Column[str]:
    return Column("project_id", Text, ForeignKey("projects.id"), nullable=False)


def _job(*, primary_key: bool = False) -> Column[str]:
    return Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=primary_key, nullable=False)


projects = Table("projects", metadata, Column("id", Text, primary_key=True), Column("created", Double, nullable=False))


def _uploads(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        _project(),
        Column("name", Text, nullable=False),
        Column("sha256", Text, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("format", Text, nullable=False),
        Column("spec", Text, nullable=False),
        Column("created", Double, nullable=False),
        Index(None, "project_id", "created", "id"),
        Index(None, "sha256"),
    )


models = _uploads("models")
datasets = _uploads("datasets")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("key", Text),
    Column("body", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("model_id", Text, ForeignKey("models.id", ondelete="SET NULL")),
    Column("data_id", Text, ForeignKey("datasets.id", ondelete="SET NULL")),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost", Integer, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("worker", Text),
    Column("lease", Double),
    Column("progress", Text, nullable=False),
    Column("reason", Text),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    UniqueConstraint("project_id", "key"),
    CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out')", name="state"),
    CheckConstraint("(state = 'running') = (lease IS NOT NULL)", name="lease"),
    Index(None, "project_id", "created", "id"),
    Index(None, "state", "lease"),
    Index(None, "model_id"),
    Index(None, "data_id"),
)

inputs = Table(
    "inputs",
    metadata,
    _job(primary_key=True),
    Column("name", Text, primary_key=True),
    _project(),
    Column("model_id", Text, ForeignKey("models.id", ondelete="SET NULL")),
    Column("data_id", Text, ForeignKey("datasets.id", ondelete="SET NULL")),
    Index(None, "model_id"),
    Index(None, "data_id"),
)
"""What a job needs beside its model and its data, under the name it has in the job: a model or a dataset."""

lineages = Table(
    "lineages",
    metadata,
    Column("model_id", Text, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, nullable=False),
    _project(),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="SET NULL")),
    Column("place", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Index(None, "job_id"),
)
"""Where a model comes from that a job made: the contract's Lineage, the job until that is forgotten, its place among the job's models."""

outbox = Table(
    "outbox",
    metadata,
    _job(primary_key=True),
    _project(),
    Column("attempt", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("sent", Double),
    Index(None, "sent", "created"),
)
"""One row for each queued job: what the dispatcher has to tell the queue, and when it last did (`sent`)."""

artifacts = Table(
    "artifacts",
    metadata,
    _job(primary_key=True),
    Column("name", Text, primary_key=True),
    _project(),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Index(None, "sha256"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _project(),
    _job(),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("progress", Text, nullable=False),
    Column("reason", Text),
    Index(None, "job_id", "id"),
    sqlite_autoincrement=True,
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("last_used", Double),
    Column("expires", Double),
)

gates = Table(
    "gates",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("name", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Index(None, "project_id", "created", "id"),
)
"""Gates that were run: the contract's GateRun; `job` may be one that is forgotten since."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("delivered", Double),
    Column("fault", Text, nullable=False),
    Index(None, "project_id", "created", "id"),
)
"""Who is told of the end of a job. What is sent is signed with the secret, which must therefore be kept as it is."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    _project(),
    Column("body", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due", Double, nullable=False),
    Column("created", Double, nullable=False),
    Index(None, "due"),
    Index(None, "webhook_id"),
)
"""One row for each message that has not arrived yet, and the time `due` of its next try; while it is tried, that of giving the try up."""

baselines = Table(
    "baselines",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("key", Text, nullable=False),
    Column("branch", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Double, nullable=False),
    UniqueConstraint("project_id", "key"),
    Index(None, "project_id", "created", "id"),
)
"""Baselines: the contract's Baseline; `key` is the digest of its key."""

"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.sql.schema import SchemaItem

from sparring.storage.database import now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies it."""
    projects = op.create_table("projects", _text("id"), _time("created"), _primary("projects", "id"))
    op.execute(sa.insert(projects).values(id="default", created=now()))
    _create_uploads("models")
    _create_uploads("datasets")
    _create_jobs()
    _create_outbox()
    _create_artifacts()
    _create_events()
    _create_keys()


def downgrade() -> None:
    """Takes it back."""
    for table in ("keys", "events", "artifacts", "outbox", "jobs", "datasets", "models", "projects"):
        op.drop_table(table)


def _create_uploads(table: str) -> None:
    columns = [_text(name) for name in ("id", "project_id", "name", "sha256", "format", "spec")]
    size = sa.Column("size", sa.BigInteger(), nullable=False)
    op.create_table(table, *columns, size, _time("created"), _primary(table, "id"), _foreign(table, "project_id", "projects"))
    _index(table, "project_id", "created", "id")
    _index(table, "sha256")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        *(_text(name) for name in ("id", "project_id", "body", "device", "state", "progress")),
        *(_text(name, nullable=True) for name in ("key", "model_id", "data_id", "worker", "reason")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("attempt", "lost")),
        sa.Column("cancel", sa.Boolean(), nullable=False),
        _time("created"),
        *(_time(name, nullable=True) for name in ("lease", "started", "finished")),
        _primary("jobs", "id"),
        _foreign("jobs", "project_id", "projects"),
        _foreign("jobs", "model_id", "models", ondelete="SET NULL"),
        _foreign("jobs", "data_id", "datasets", ondelete="SET NULL"),
        sa.UniqueConstraint("project_id", "key", name="uq_jobs_project_id_key"),
        sa.CheckConstraint("(state = 'running') = (lease IS NOT NULL)", name="ck_jobs_lease"),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out')", name="ck_jobs_state"),
    )
    _index("jobs", "project_id", "created", "id")
    _index("jobs", "state", "lease")
    _index("jobs", "model_id")
    _index("jobs", "data_id")


def _create_outbox() -> None:
    columns = [_text("job_id"), _text("project_id")]
    attempt = sa.Column("attempt", sa.Integer(), nullable=False)
    times = [_time("created"), _time("sent", nullable=True)]
    op.create_table("outbox", *columns, attempt, *times, _primary("outbox", "job_id"), *_foreign_job("outbox"))
    _index("outbox", "sent", "created")


def _create_artifacts() -> None:
    columns = [_text(name) for name in ("job_id", "name", "project_id", "sha256", "media_type")]
    size = sa.Column("size", sa.BigInteger(), nullable=False)
    op.create_table("artifacts", *columns, size, _primary("artifacts", "job_id", "name"), *_foreign_job("artifacts"))
    _index("artifacts", "sha256")


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        *(_text(name) for name in ("project_id", "job_id", "kind", "state", "progress")),
        _text("reason", nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _time("time"),
        _primary("events", "id"),
        *_foreign_job("events"),
        sqlite_autoincrement=True,
    )
    _index("events", "job_id", "id")


def _create_keys() -> None:
    columns = [_text(name) for name in ("id", "project_id", "name", "digest")]
    times = [_time("created"), _time("last_used", nullable=True), _time("expires", nullable=True)]
    op.create_table("keys", *columns, *times, _primary("keys", "id"), _foreign("keys", "project_id", "projects"))


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _primary(table: str, *columns: str) -> SchemaItem:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _foreign(table: str, column: str, other: str, *, ondelete: str | None = None) -> SchemaItem:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}", ondelete=ondelete)


def _foreign_job(table: str) -> list[SchemaItem]:
    return [_foreign(table, "job_id", "jobs", ondelete="CASCADE"), _foreign(table, "project_id", "projects")]


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))

"""Verdicts of gates, and baselines."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _texts(*names: str) -> tuple[sa.Column[str], ...]:
    return tuple(sa.Column(name, sa.Text(), nullable=False) for name in names)


def upgrade() -> None:
    """Applies it."""
    op.create_table(
        "gates",
        *_texts("id", "project_id", "name", "job", "body"),
        sa.Column("exit_code", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_gates"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_gates_project_id_projects"),
    )
    op.create_index("ix_gates_project_id_created_id", "gates", ["project_id", "created", "id"])
    op.create_table(
        "baselines",
        *_texts("id", "project_id", "key", "branch", "model", "data", "body"),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baselines"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_baselines_project_id_projects"),
        sa.UniqueConstraint("project_id", "key", name="uq_baselines_project_id_key"),
    )
    op.create_index("ix_baselines_project_id_created_id", "baselines", ["project_id", "created", "id"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("baselines")
    op.drop_table("gates")

"""Where a model comes from that a job made."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies it."""
    op.create_table(
        "lineages",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("model_id", "project_id")),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model_id", name="pk_lineages"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_lineages_model_id_models", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_lineages_project_id_projects"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_lineages_job_id_jobs", ondelete="SET NULL"),
    )
    op.create_index("ix_lineages_job_id", "lineages", ["job_id"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("lineages")

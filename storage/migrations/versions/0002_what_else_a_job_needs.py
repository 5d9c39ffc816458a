"""What else a job needs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies it."""
    op.create_table(
        "inputs",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("job_id", "name", "project_id")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("model_id", "data_id")),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_inputs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_inputs_job_id_jobs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_inputs_project_id_projects"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_inputs_model_id_models", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["data_id"], ["datasets.id"], name="fk_inputs_data_id_datasets", ondelete="SET NULL"),
    )
    op.create_index("ix_inputs_model_id", "inputs", ["model_id"])
    op.create_index("ix_inputs_data_id", "inputs", ["data_id"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("inputs")

"""Webhooks, and the messages that have not arrived yet."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _texts(*names: str) -> tuple[sa.Column[str], ...]:
    return tuple(sa.Column(name, sa.Text(), nullable=False) for name in names)


def upgrade() -> None:
    """Applies it."""
    op.create_table(
        "webhooks",
        *_texts("id", "project_id", "url", "secret", "fault"),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("delivered", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_webhooks_project_id_projects"),
    )
    op.create_index("ix_webhooks_project_id_created_id", "webhooks", ["project_id", "created", "id"])
    op.create_table(
        "deliveries",
        *_texts("id", "webhook_id", "project_id", "body"),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due", sa.Double(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id_webhooks", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_deliveries_project_id_projects"),
    )
    op.create_index("ix_deliveries_due", "deliveries", ["due"])
    op.create_index("ix_deliveries_webhook_id", "deliveries", ["webhook_id"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_table("deliveries")
    op.drop_table("webhooks")

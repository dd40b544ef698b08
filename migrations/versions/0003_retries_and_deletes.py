"""Columns for the checkpoints that a retry adopts, for deleted jobs, and for attempts that Ray has released.

Revision 0003.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: on SQLite that would copy and drop `jobs`, and with it all rows that refer to it.
    op.add_column("jobs", sa.Column("adopts", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True))
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_deleted", "jobs", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.create_index("ix_attempts_unreleased", "attempts", ["released_at"], postgresql_where=sa.text("released_at IS NULL"))
    # Attempts that ended before this revision count as released.
    op.execute("UPDATE attempts SET released_at = finished_at WHERE outcome IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_attempts_unreleased", "attempts")
    op.drop_index("ix_jobs_deleted", "jobs")
    op.drop_column("attempts", "released_at")
    op.drop_column("jobs", "deleted_at")
    op.drop_column("jobs", "adopts")

"""Retries adopt checkpoints, deletes are finished by a sweep, attempts are released by Ray.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not as a batch: on SQLite that would copy and drop `jobs`, and all that hangs on it would go with it.
    op.add_column("jobs", sa.Column("adopts", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True))
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("released_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_jobs_deleted", "jobs", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.create_index("ix_attempts_unreleased", "attempts", ["released_at"], postgresql_where=sa.text("released_at IS NULL"))
    # Attempts that were over before are taken to be gone.
    op.execute("UPDATE attempts SET released_at = finished_at WHERE outcome IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_attempts_unreleased", "attempts")
    op.drop_index("ix_jobs_deleted", "jobs")
    op.drop_column("attempts", "released_at")
    op.drop_column("jobs", "deleted_at")
    op.drop_column("jobs", "adopts")

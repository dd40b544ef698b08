"""Progress of the retention of ended jobs.

Revision 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JOB_MARKS = ("checkpoints_expired_at", "checkpoints_removed_at", "logs_removed_at", "events_removed_at")


def upgrade() -> None:
    # Not as a batch: on SQLite that would copy and drop `jobs`, and with it all rows that refer to it.
    for name in JOB_MARKS:
        op.add_column("jobs", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "forgotten_at")
    for name in reversed(JOB_MARKS):
        op.drop_column("jobs", name)

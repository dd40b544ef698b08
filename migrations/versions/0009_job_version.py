"""Without a job's `version`, which has always been the number of its last event.

Revision 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("jobs", "version")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("version", sa.BigInteger(), nullable=False, server_default="1"))
    op.execute("UPDATE jobs SET version = last_event")

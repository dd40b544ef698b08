"""The installation that owns a database, the cluster of each Ray job, and the time of its last sign of progress.

Revision 0010.
"""

import secrets
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = ("attempts", "indexes", "evaluations", "exports")
"""Tables with one Ray job a row."""


def upgrade() -> None:
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("artifacts", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.bulk_insert(installation, [{"id": secrets.token_hex(16), "created_at": datetime.now(UTC)}])
    for table in TABLES:
        op.add_column(table, sa.Column("cluster", sa.String(), nullable=True))
        op.add_column(table, sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "progressed_at")
        op.drop_column(table, "cluster")
    op.drop_table("installation")

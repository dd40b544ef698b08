"""Deployments with a canary, with several models, and with a rollback from a version that does not start.

Revision 0008.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("deployments", sa.Column("canary_version", sa.BigInteger(), nullable=True))
    op.add_column("deployments", sa.Column("models", JSON, nullable=False, server_default=sa.text("'[]'")))
    op.add_column("deployments", sa.Column("good", JSON, nullable=True))
    op.add_column("deployments", sa.Column("failed_version", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for column in ("failed_version", "good", "models", "canary_version"):
        op.drop_column("deployments", column)

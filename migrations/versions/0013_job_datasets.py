"""The version of a data set that a job trains on.

Revision 0013.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("dataset", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "dataset")

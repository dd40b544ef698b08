"""Size and search cost of indexes.

Revision 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("indexes", sa.Column("bytes", sa.BigInteger(), nullable=True))
    op.add_column("indexes", sa.Column("search_ms", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("indexes", "search_ms")
    op.drop_column("indexes", "bytes")

"""Indexes with updates of single items.

Revision 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("indexes", sa.Column("kind", sa.String(), server_default="exact", nullable=False))
    op.add_column("indexes", sa.Column("recall", sa.Double(), nullable=True))
    for name, default in (("attempt", "1"), ("updates", "0"), ("applied", "0")):
        op.add_column("indexes", sa.Column(name, sa.BigInteger(), server_default=default, nullable=False))
    rejected = sa.Column(
        "rejected", sa.JSON().with_variant(JSONB(), "postgresql"), server_default=sa.text("'[]'"), nullable=False
    )
    op.add_column("indexes", rejected)
    op.create_table(
        "index_updates",
        sa.Column("index_name", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_name"], ["indexes.name"], name=op.f("fk_index_updates_index_name_indexes"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("index_name", "number", name=op.f("pk_index_updates")),
    )


def downgrade() -> None:
    op.drop_table("index_updates")
    for name in ("rejected", "applied", "updates", "attempt", "recall", "kind"):
        op.drop_column("indexes", name)

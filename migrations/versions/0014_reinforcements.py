"""Reinforcements of data sets.

Revision 0014.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    op.create_table(
        "reinforcements",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("dataset_name", sa.String(), nullable=False),
        sa.Column("dataset_version", sa.BigInteger(), nullable=False),
        sa.Column("spec", document, nullable=False),
        sa.Column("document", document, nullable=True),
        sa.Column("error", document, nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("ray_submission_id", sa.String(), nullable=True),
        sa.Column("cluster", sa.String(), nullable=True),
        sa.Column("submitted", sa.Boolean(), nullable=False),
        sa.Column("next_segment", sa.BigInteger(), nullable=False),
        sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_name", "dataset_version"],
            ["dataset_versions.dataset_name", "dataset_versions.version"],
            name=op.f("fk_reinforcements_dataset_name_dataset_version"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reinforcements")),
    )
    op.create_index("ix_reinforcements_newest", "reinforcements", ["dataset_name", "dataset_version", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_reinforcements_newest", "reinforcements")
    op.drop_table("reinforcements")

"""Data sets, their versions and aliases.

Revision 0012.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    op.create_table(
        "dataset_names",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("next_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dataset_names")),
    )
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("spec", document, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("error", document, nullable=True),
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
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_table(
        "dataset_versions",
        sa.Column("dataset_name", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("document", document, nullable=False),
        sa.Column("request", document, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_name"], ["datasets.name"], name=op.f("fk_dataset_versions_dataset_name"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset_name", "version", name=op.f("pk_dataset_versions")),
    )
    op.create_index("ix_dataset_versions_deleted", "dataset_versions", ["deleted_at"])
    op.create_table(
        "dataset_aliases",
        sa.Column("dataset_name", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_name", "version"],
            ["dataset_versions.dataset_name", "dataset_versions.version"],
            name=op.f("fk_dataset_aliases_dataset_name_version"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dataset_name", "alias", name=op.f("pk_dataset_aliases")),
    )


def downgrade() -> None:
    op.drop_table("dataset_aliases")
    op.drop_index("ix_dataset_versions_deleted", "dataset_versions")
    op.drop_table("dataset_versions")
    op.drop_table("datasets")
    op.drop_table("dataset_names")

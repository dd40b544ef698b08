"""Searches, and jobs that are trials of one.

Revision 0017.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("search_id", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("trial", sa.BigInteger(), nullable=True))
    op.create_index("ix_jobs_trial", "jobs", ["search_id", "trial"], unique=True)
    op.create_table(
        "searches",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("post", JSON, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("plan", JSON, nullable=False),
        sa.Column("costs", JSON, nullable=True),
        sa.Column("device_hours", sa.Double(), nullable=False),
        sa.Column("result", JSON, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_searches")),
    )
    op.create_index("ix_searches_newest", "searches", ["project", "created_at", "id"])
    op.create_index("ix_searches_state", "searches", ["state"])
    op.create_index(
        "ix_searches_deleted", "searches", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    _create_parts()


def _create_parts() -> None:
    """Create what belongs to a search."""
    op.create_table(
        "search_trials",
        sa.Column("search_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("rung", sa.BigInteger(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("outcome", JSON, nullable=True),
        sa.Column("measurements", JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_search_trials_search_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("search_id", "number", name=op.f("pk_search_trials")),
    )
    op.create_table(
        "search_events",
        sa.Column("search_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("trial", sa.BigInteger(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["searches.id"], name=op.f("fk_search_events_search_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("search_id", "seq", name=op.f("pk_search_events")),
    )
    op.create_table(
        "search_measurements",
        sa.Column("search_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("result", JSON, nullable=True),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
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
            ["search_id"], ["searches.id"], name=op.f("fk_search_measurements_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("search_id", "kind", name=op.f("pk_search_measurements")),
    )


def downgrade() -> None:
    for table in ("search_measurements", "search_events", "search_trials"):
        op.drop_table(table)
    for index in ("ix_searches_deleted", "ix_searches_state", "ix_searches_newest"):
        op.drop_index(index, "searches")
    op.drop_table("searches")
    op.drop_index("ix_jobs_trial", "jobs")
    op.drop_column("jobs", "trial")
    op.drop_column("jobs", "search_id")

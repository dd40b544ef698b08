"""Numbers of metric points, the causes of ended attempts, and specs as they were sent.

Revision 0016.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
COLUMNS = "job_id, name, stage, step, value"

CAUSES = """
UPDATE attempts SET cause = COALESCE((
    SELECT CASE events.type
        WHEN 'job.cancelled' THEN 'the job was cancelled' WHEN 'job.paused' THEN 'the job was paused' ELSE events.message
    END
    FROM events
    WHERE events.job_id = attempts.job_id AND events.attempt = attempts.number AND events.type IN (
        'attempt.failed', 'attempt.lost', 'attempt.stalled', 'attempt.interrupted',
        'job.failed', 'job.queued', 'job.paused', 'job.cancelled'
    )
    ORDER BY events.seq LIMIT 1
), '')
WHERE outcome IS NOT NULL AND outcome <> 'succeeded'
"""
"""The first of these events is the one that was recorded when the attempt ended."""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("submitted_spec", JSON, nullable=True))
    op.add_column("jobs", sa.Column("last_metric", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("cause", sa.String(), nullable=False, server_default=""))
    op.execute(CAUSES)
    _number_points()
    op.execute("UPDATE jobs SET last_metric = COALESCE((SELECT MAX(seq) FROM metric_points WHERE job_id = jobs.id), 0)")


def _number_points() -> None:
    """Copy the points into a new table in one pass: an update of millions of rows takes longer and leaves the old ones behind."""
    op.rename_table("metric_points", "old_metric_points")
    if op.get_bind().dialect.name == "postgresql":  # whose names of constraints are unique in the schema
        for name in ("pk_metric_points", "fk_metric_points_job_id"):
            op.drop_constraint(name, "old_metric_points")
    op.create_table(
        "metric_points",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("stage", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metric_points_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", "stage", "step", name=op.f("pk_metric_points")),
    )
    op.execute(
        f"INSERT INTO metric_points ({COLUMNS}, seq) SELECT {COLUMNS}, "
        "ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY stage, step, name) FROM old_metric_points"
    )
    op.drop_table("old_metric_points")
    op.create_index("ix_metric_points_seq", "metric_points", ["job_id", "seq"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_metric_points_seq", "metric_points")
    op.drop_column("metric_points", "seq")
    op.drop_column("attempts", "cause")
    op.drop_column("jobs", "last_metric")
    op.drop_column("jobs", "submitted_spec")

"""Training jobs and everything that belongs to one."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from tinyclip.schemas import JobState, StageState

from tinyclip_server.database.engine import Base, now


class JobRow(Base):
    """One job. `last_event` grows with every change, `revision` only when its state or what a user may edit changes."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_newest", "project", "created_at", "id"),
        Index("ix_jobs_queue", "state", "priority", "created_at"),
        Index("ix_jobs_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        Index("ix_jobs_trial", "search_id", "trial", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    labels: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    spec: Mapped[dict[str, Any]]
    """The submitted spec, with defaults; the versions of `registry:` teachers are pinned."""
    resolved_spec: Mapped[dict[str, Any]]
    """The spec that workers get, from the plan."""
    submitted_spec: Mapped[dict[str, Any] | None]
    """The spec as it was sent, without defaults; None for jobs of older servers."""
    dataset: Mapped[dict[str, Any] | None]
    """The `DatasetVersion` that the job trains on, without aliases; None: its spec names shards."""
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    revision: Mapped[int] = mapped_column(default=1)
    last_event: Mapped[int] = mapped_column(default=0)
    last_log: Mapped[int] = mapped_column(default=0)
    last_metric: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt, and the fencing token: only that attempt may write."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that failed or were lost; a pause does not count."""
    progress: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    model_name: Mapped[str]
    model_version: Mapped[int | None]
    """Reserved at the first attempt; registered when the job succeeds."""
    control: Mapped[str] = mapped_column(default="")
    """The content of the control file, so that it is written only when it changes."""
    lease_owner: Mapped[str] = mapped_column(default="")
    lease_token: Mapped[int] = mapped_column(default=0)
    """Grows each time another server takes the lease; a write with an older token is refused."""
    lease_until: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    adopts: Mapped[list[Any] | None]
    """Jobs whose checkpoints a retry continues from, the retried one first."""
    search_id: Mapped[str | None]
    """The search that it is a trial of, and the number of the trial."""
    trial: Mapped[int | None]
    deleted_at: Mapped[datetime | None]
    """Set when a job is deleted: it is hidden from then on, and `jobs/cleanup.py` removes the rest."""
    checkpoints_expired_at: Mapped[datetime | None]
    """From then on no retry can begin; `orchestration/retention.py` removes the checkpoints, then sets the next column."""
    checkpoints_removed_at: Mapped[datetime | None]
    logs_removed_at: Mapped[datetime | None]
    events_removed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    stages: Mapped[list["StageRow"]] = relationship(order_by="StageRow.index", lazy="selectin", cascade="all, delete-orphan")


class JobLabelRow(Base):
    """A label of a job, for filtering by an index."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("ix_job_labels_pair", "key", "value"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class StageRow(Base):
    __tablename__ = "stages"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    inherit: Mapped[str]
    steps: Mapped[int]
    state: Mapped[str] = mapped_column(default=StageState.PENDING)
    student: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any]]
    evaluation: Mapped[dict[str, Any]]


class AttemptRow(Base):
    """One attempt at a job: one Ray job. `next_segment` is the read position in its event segments."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_unreleased", "released_at", postgresql_where=text("released_at IS NULL")),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    ray_submission_id: Mapped[str]
    cluster: Mapped[str | None]
    """The cluster that it is submitted to, set by the scheduler that first claims it. Only servers of this cluster ask Ray."""
    submitted: Mapped[bool] = mapped_column(default=False)
    outcome: Mapped[str | None]
    """An `AttemptOutcome` of `jobs/lifecycle.py`, set once; None while the attempt runs."""
    cause: Mapped[str] = mapped_column(default="")
    """Why it ended, unless it succeeded."""
    next_segment: Mapped[int] = mapped_column(default=1)
    model: Mapped[dict[str, Any] | None]
    """The document of the version that the attempt wrote, registered when it succeeds."""
    ray_status: Mapped[str | None]
    progressed_at: Mapped[datetime | None]
    """When its last event segment was applied; before the first one, when it was submitted."""
    unknown_since: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    """When Ray had ended its processes; an attempt may have an outcome before that."""
    forgotten_at: Mapped[datetime | None]
    """When Ray's record of it was deleted."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class EventRow(Base):
    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    attempt: Mapped[int | None]
    stage: Mapped[int | None]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class LogLineRow(Base):
    __tablename__ = "log_lines"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    level: Mapped[str]
    source: Mapped[str]
    message: Mapped[str]
    created_at: Mapped[datetime]


class MetricPointRow(Base):
    """One value of one series; an attempt that repeats a step replaces the point, which is then the newest again."""

    __tablename__ = "metric_points"
    __table_args__ = (Index("ix_metric_points_seq", "job_id", "seq", unique=True),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]
    seq: Mapped[int]

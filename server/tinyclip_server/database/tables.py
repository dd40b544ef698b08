"""The tables. A job and all that hangs on it, the registry, what is deployed and indexed, and who may do so."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from tinyclip.schemas import DeploymentState, JobState, StageState

from tinyclip_server.database.engine import Base, now


class JobRow(Base):
    """One job. `last_event` grows with every change, `revision` only when its state or what a user may edit changes."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_newest", "project", "created_at", "id"),
        Index("ix_jobs_queue", "state", "priority", "created_at"),
        Index("ix_jobs_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    labels: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    spec: Mapped[dict[str, Any]]
    """As submitted, with defaults; `registry:` teachers keep their name but have their version pinned."""
    resolved_spec: Mapped[dict[str, Any]]
    """As planned: what the workers get."""
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    revision: Mapped[int] = mapped_column(default=1)
    last_event: Mapped[int] = mapped_column(default=0)
    last_log: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt, and the fence: only that attempt may write."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that died; a pause is none."""
    progress: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    model_name: Mapped[str]
    model_version: Mapped[int | None]
    """Reserved at the first attempt; registered when the job succeeds."""
    control: Mapped[str] = mapped_column(default="")
    """What the control file says, so that it is written only when it changes."""
    lease_owner: Mapped[str] = mapped_column(default="")
    lease_token: Mapped[int] = mapped_column(default=0)
    """Grows each time the job changes hands; a write with an older token is refused."""
    lease_until: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    adopts: Mapped[list[Any] | None]
    """Of a retry: ids of the jobs whose checkpoints it goes on from, the one that was retried first."""
    deleted_at: Mapped[datetime | None]
    """Set first of all when a job is deleted: nobody sees it from then on, and `cleanup.py` removes the rest."""
    checkpoints_expired_at: Mapped[datetime | None]
    """From here on no retry can begin; `retention.py` removes the checkpoints, then says so in the next."""
    checkpoints_removed_at: Mapped[datetime | None]
    logs_removed_at: Mapped[datetime | None]
    events_removed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    stages: Mapped[list["StageRow"]] = relationship(order_by="StageRow.index", lazy="selectin", cascade="all, delete-orphan")


class JobLabelRow(Base):
    """A job's labels again, so that filtering by them uses an index."""

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
    """One try at a job: one Ray job. `next_segment` is the read position in its event segments."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("ix_attempts_unreleased", "released_at", postgresql_where=text("released_at IS NULL")),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    ray_submission_id: Mapped[str]
    submitted: Mapped[bool] = mapped_column(default=False)
    outcome: Mapped[str | None]
    """null while it lives; what follows is an `AttemptOutcome` of `jobs/lifecycle.py` and stays."""
    next_segment: Mapped[int] = mapped_column(default=1)
    model: Mapped[dict[str, Any] | None]
    """The exported version's document, registered with the success."""
    ray_status: Mapped[str | None]
    unknown_since: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    """When Ray was seen to have nothing left of it; an attempt may be over for us before its processes are."""
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
    """One value of one series; an attempt that repeats a step replaces the point."""

    __tablename__ = "metric_points"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float]


class ModelRow(Base):
    """A model's name and the next version to hand out; it is shown once it has a version."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    next_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelVersionRow(Base):
    __tablename__ = "model_versions"

    model_name: Mapped[str] = mapped_column(ForeignKey("models.name"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]
    """A `ModelVersion` without its aliases."""
    job_id: Mapped[str | None]
    """No foreign key: a version outlives its job."""
    created_at: Mapped[datetime]


class AliasRow(Base):
    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["model_name", "version"], ["model_versions.model_name", "model_versions.version"]),
    )

    model_name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class DeploymentRow(Base):
    """A model to be served. `spec` is the `DeploymentPut` as asked; the versions that it names are resolved beside it."""

    __tablename__ = "deployments"

    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    spec: Mapped[dict[str, Any]]
    model_name: Mapped[str]
    model_version: Mapped[int]
    canary_version: Mapped[int | None]
    models: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    good: Mapped[dict[str, Any] | None]
    """The `Target` that was last seen to answer: Serve gets it again when what was asked for after it does not start."""
    failed_version: Mapped[int | None]
    """`version` that did not start."""
    state: Mapped[str] = mapped_column(default=DeploymentState.DEPLOYING)
    message: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    applied_version: Mapped[int] = mapped_column(default=0)
    """`version` that Serve was last told."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class RayJobRow:
    """Columns of a row whose work one Ray job does (`orchestration/follower.py`).

    `version` changes when something else is to be done; `next_segment` is the read position in the job's event segments.
    """

    project: Mapped[str]
    attempt: Mapped[int]
    """Number of the newest job."""
    state: Mapped[str]
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    ray_submission_id: Mapped[str | None]
    submitted: Mapped[bool] = mapped_column(default=False)
    next_segment: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class IndexRow(RayJobRow, Base):
    """A retrieval index and its newest build."""

    __tablename__ = "indexes"

    name: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    model_name: Mapped[str]
    model_version: Mapped[int]
    count: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(default="exact", server_default="exact")
    recall: Mapped[float | None]
    build: Mapped[int] = mapped_column(default=1)
    attempt: Mapped[int] = mapped_column(default=1, server_default="1")
    """Of the newest job; the third, sixth … that ends without a word is the last before somebody asks again."""
    updates: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the newest that was accepted."""
    applied: Mapped[int] = mapped_column(default=0, server_default="0")
    rejected: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))


class IndexUpdateRow(Base):
    """An accepted update of an index that is not applied yet; its file is in the artifacts store before this row is."""

    __tablename__ = "index_updates"

    index_name: Mapped[str] = mapped_column(ForeignKey("indexes.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class EvaluationRow(RayJobRow, Base):
    """A model's evaluation. `spec` is the `EvaluationPost` as asked with versions resolved, `request` what workers get."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("ix_evaluations_newest", "project", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    request: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(index=True)
    model_name: Mapped[str | None]
    model_version: Mapped[int | None]
    """Of a registered model, whose version then shows the numbers too."""
    attempt: Mapped[int] = mapped_column(default=1)
    warnings: Mapped[list[Any]]
    results: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]


class ExportRow(RayJobRow, Base):
    """A model version in one format. `request` is what workers get, `document` the `export.json` that they have written."""

    __tablename__ = "exports"
    __table_args__ = (Index("ix_exports_of_version", "model_name", "model_version", "name", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    model_name: Mapped[str]
    model_version: Mapped[int]
    name: Mapped[str]
    """As `onnx` or `onnx-int8`."""
    format: Mapped[str]
    int8: Mapped[bool]
    request: Mapped[dict[str, Any]]
    document: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    """Grows with every job that was begun for this row, so that none has another's name."""
    lost: Mapped[int] = mapped_column(default=0)
    """Jobs that have ended without a word since it was asked for."""
    finished_at: Mapped[datetime | None]


class TokenRow(Base):
    """A token of a project, without its secret. A revoked one stays, so that its use can be told from a typo."""

    __tablename__ = "tokens"
    __table_args__ = (
        Index("ix_tokens_newest", "project", "created_at", "id"),
        Index("ix_tokens_idempotency", "project", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    """SHA-256 of the token, in hex."""
    hint: Mapped[str]
    scopes: Mapped[list[Any]]
    created_by: Mapped[str]
    idempotency_key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyRow(Base):
    """A POST that carried an `Idempotency-Key`; without a status it is still being answered."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    body: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

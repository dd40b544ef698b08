"""Indexes, evaluations and exports: rows whose work one Ray job does."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from tinyclip_server.database.engine import Base, now


class RayJobRow:
    """Columns of a row whose work one Ray job does (`orchestration/followers/follower.py`).

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
    cluster: Mapped[str | None]
    """The cluster that the job is submitted to, set before that. Only servers of this cluster ask Ray for it."""
    submitted: Mapped[bool] = mapped_column(default=False)
    next_segment: Mapped[int] = mapped_column(default=1)
    progressed_at: Mapped[datetime | None]
    """When the job's last event segment was applied; before the first one, when it was submitted."""
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
    bytes: Mapped[int | None]
    search_ms: Mapped[float | None]
    build: Mapped[int] = mapped_column(default=1)
    attempt: Mapped[int] = mapped_column(default=1, server_default="1")
    """Number of the newest job; after every third that ends without a final event, a user has to PUT again."""
    updates: Mapped[int] = mapped_column(default=0, server_default="0")
    """Number of the newest accepted update."""
    applied: Mapped[int] = mapped_column(default=0, server_default="0")
    rejected: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))


class IndexUpdateRow(Base):
    """An accepted update of an index that is not applied yet. Its file is written before this row."""

    __tablename__ = "index_updates"

    index_name: Mapped[str] = mapped_column(ForeignKey("indexes.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class EvaluationRow(RayJobRow, Base):
    """An evaluation. `spec` is the `EvaluationPost` with versions resolved, `request` the document for workers."""

    __tablename__ = "evaluations"
    __table_args__ = (Index("ix_evaluations_newest", "project", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    request: Mapped[dict[str, Any]]
    model: Mapped[str] = mapped_column(index=True)
    model_name: Mapped[str | None]
    model_version: Mapped[int | None]
    """Set for a registered model, whose version then has the numbers too."""
    attempt: Mapped[int] = mapped_column(default=1)
    warnings: Mapped[list[Any]]
    results: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[datetime | None]


class ExportRow(RayJobRow, Base):
    """A model version in one format. `request` is the document for workers, `document` the `export.json` that they wrote."""

    __tablename__ = "exports"
    __table_args__ = (Index("ix_exports_of_version", "model_name", "model_version", "name", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    model_name: Mapped[str]
    model_version: Mapped[int]
    name: Mapped[str]
    """Such as `onnx` or `onnx-int8`."""
    format: Mapped[str]
    int8: Mapped[bool]
    """The other options are in `request`."""
    request: Mapped[dict[str, Any]]
    document: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    """Grows with every job of this row, so that each has its own id."""
    lost: Mapped[int] = mapped_column(default=0)
    """Jobs that ended without a final event since the export was requested."""
    finished_at: Mapped[datetime | None]

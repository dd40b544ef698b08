"""Searches, their trials, their events, and what their own Ray jobs measure."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column
from tinyclip.schemas import JobState, SearchPhase

from tinyclip_server.database.engine import Base, now
from tinyclip_server.database.tables.ray_jobs import RayJobRow


class SearchRow(Base):
    """One search. `last_event` grows with every change, `revision` only when its state changes."""

    __tablename__ = "searches"
    __table_args__ = (
        Index("ix_searches_newest", "project", "created_at", "id"),
        Index("ix_searches_state", "state"),
        Index("ix_searches_deleted", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    post: Mapped[dict[str, Any]]
    """The `SearchPost`; the versions of `registry:` teachers and of the data set are pinned."""
    state: Mapped[str] = mapped_column(default=JobState.QUEUED)
    phase: Mapped[str] = mapped_column(default=SearchPhase.TRIALS)
    message: Mapped[str] = mapped_column(default="")
    plan: Mapped[dict[str, Any]]
    """Of the spec as it is, when the search was created: a `PlannedSpec` (`searches/trials.py`)."""
    costs: Mapped[dict[str, Any] | None]
    """The `CostModel` that was measured."""
    device_hours: Mapped[float] = mapped_column(default=0.0)
    """Of the trials that have ended."""
    result: Mapped[dict[str, Any] | None]
    """A `SearchResult`."""
    revision: Mapped[int] = mapped_column(default=1)
    last_event: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str] = mapped_column(default="")
    lease_token: Mapped[int] = mapped_column(default=0)
    """Grows each time another server takes the lease; a write with an older token is refused."""
    lease_until: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """Set when a search is deleted: it is hidden from then on, and `orchestration/searches` removes the rest."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class TrialRow(Base):
    """One trial. Its job has the id of the search and this number."""

    __tablename__ = "search_trials"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    rung: Mapped[int]
    settings: Mapped[dict[str, Any]]
    job_id: Mapped[str | None]
    """None: it could not be planned, and failed."""
    outcome: Mapped[dict[str, Any] | None]
    """What is known of it once it has ended (`TrialOutcome` in `searches/trials.py`), also after its job is deleted."""
    measurements: Mapped[list[Any] | None]
    """As a finalist, each a `Measurement`."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class SearchEventRow(Base):
    __tablename__ = "search_events"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    trial: Mapped[int | None]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class MeasurementRow(RayJobRow, Base):
    """A Ray job of a search, which measures: `costs` before the trials, `finalists` after them."""

    __tablename__ = "search_measurements"

    search_id: Mapped[str] = mapped_column(ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[dict[str, Any]]
    """The document for workers, without the number of the attempt."""
    result: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    """Grows with every job of this row, so that each has its own id."""
    lost: Mapped[int] = mapped_column(default=0)
    """Jobs that ended without a final event since the measurement was requested."""

"""Data sets, their versions and aliases, and reinforcements of versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from tinyclip_server.database.engine import Base
from tinyclip_server.database.tables.ray_jobs import RayJobRow


class DatasetNameRow(Base):
    """The next version number of a name. It is kept when a data set is deleted, so that `emoji@1` is always the same data."""

    __tablename__ = "dataset_names"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_version: Mapped[int] = mapped_column(default=1)


class DatasetRow(RayJobRow, Base):
    """A data set and its newest registration. `spec` is the `DatasetPut` with the version of its teacher resolved."""

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    number: Mapped[int]
    """The version that the newest registration creates; without a result if that one fails or finds unchanged data."""
    attempt: Mapped[int] = mapped_column(default=1)
    """Number of the newest job for `number`; after every third that ends without a final event, a user has to PUT again."""
    error: Mapped[dict[str, Any] | None]


class DatasetVersionRow(Base):
    __tablename__ = "dataset_versions"
    __table_args__ = (Index("ix_dataset_versions_deleted", "deleted_at"),)

    dataset_name: Mapped[str] = mapped_column(ForeignKey("datasets.name", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]
    """A `DatasetVersion` without its aliases."""
    request: Mapped[dict[str, Any]]
    """The `DatasetPut` that it was registered with."""
    deleted_at: Mapped[datetime | None]
    """Set when a version is deleted: it is hidden from then on, and `orchestration/followers/datasets.py` removes the rest."""
    created_at: Mapped[datetime]


class DatasetAliasRow(Base):
    __tablename__ = "dataset_aliases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_name", "version"], ["dataset_versions.dataset_name", "dataset_versions.version"], ondelete="CASCADE"
        ),
    )

    dataset_name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class ReinforcementRow(RayJobRow, Base):
    """Stored embeddings of a version. `spec` is the `ReinforcementPost` with versions resolved."""

    __tablename__ = "reinforcements"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset_name", "dataset_version"], ["dataset_versions.dataset_name", "dataset_versions.version"]
        ),
        Index("ix_reinforcements_newest", "dataset_name", "dataset_version", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    dataset_name: Mapped[str]
    dataset_version: Mapped[int]
    spec: Mapped[dict[str, Any]]
    document: Mapped[dict[str, Any] | None]
    """The `reinforcement.json` that workers wrote; without it there are no embeddings."""
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    """Grows with every job of this row, so that each has its own id."""
    lost: Mapped[int] = mapped_column(default=0)
    """Jobs that ended without a final event since the reinforcement was requested."""
    finished_at: Mapped[datetime | None]

"""The model registry, and the deployments of its versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column
from tinyclip.schemas import DeploymentState

from tinyclip_server.database.engine import Base, now


class ModelRow(Base):
    """A model's name and its next version number; it is listed once it has a version."""

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
    """A deployment. `spec` is the `DeploymentPut` as sent; the columns after it hold the resolved versions."""

    __tablename__ = "deployments"

    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    spec: Mapped[dict[str, Any]]
    model_name: Mapped[str]
    model_version: Mapped[int]
    canary_version: Mapped[int | None]
    models: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    good: Mapped[dict[str, Any] | None]
    """The last `Target` that answered: Serve gets it again if the one requested after it does not start."""
    failed_version: Mapped[int | None]
    """The `version` that did not start."""
    state: Mapped[str] = mapped_column(default=DeploymentState.DEPLOYING)
    message: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    applied_version: Mapped[int] = mapped_column(default=0)
    """The `version` that Serve was last configured with."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)

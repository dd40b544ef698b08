"""The installation that a database belongs to."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from tinyclip_server.database.engine import Base, now


class InstallationRow(Base):
    """One row, created with the first server: all servers of an installation share one database and one artifacts store."""

    __tablename__ = "installation"

    id: Mapped[str] = mapped_column(primary_key=True)
    """Random. The artifacts store and the applications on Ray Serve have it too."""
    artifacts: Mapped[str | None]
    """Root of the artifacts store when this database was bound to it; None: not yet."""
    owners: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))
    """Random ids that servers of this database have written into the artifacts store, newest last. One that is not among them
    was written by servers of another database."""
    created_at: Mapped[datetime] = mapped_column(default=now)

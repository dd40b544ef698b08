"""Tokens, and requests with an idempotency key."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from tinyclip_server.database.engine import Base, now


class TokenRow(Base):
    """A token of a project, without its secret. A revoked one is kept, so that its use is not taken for a typo."""

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
    """A POST with an `Idempotency-Key`; without a status it is in progress."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    body: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

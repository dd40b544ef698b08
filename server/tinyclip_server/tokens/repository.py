"""Queries over tokens."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.database.tables import TokenRow


async def by_digest(session: AsyncSession, digest: str) -> TokenRow | None:
    return await session.scalar(select(TokenRow).where(TokenRow.digest == digest))


async def by_idempotency_key(session: AsyncSession, project: str, key: str) -> TokenRow | None:
    return await session.scalar(select(TokenRow).where(TokenRow.project == project, TokenRow.idempotency_key == key))


async def find(session: AsyncSession, project: str, token_id: str, *, lock: bool = False) -> TokenRow | None:
    query = select(TokenRow).where(TokenRow.project == project, TokenRow.id == token_id)
    return await session.scalar(query.with_for_update() if lock else query)


async def newest(
    session: AsyncSession, project: str, after: tuple[datetime, str] | None, limit: int
) -> Sequence[TokenRow]:
    """Return a project's tokens, newest first."""
    query = select(TokenRow).where(TokenRow.project == project)
    if after is not None:
        query = query.where(tuple_(TokenRow.created_at, TokenRow.id) < tuple_(*after))
    return (await session.scalars(query.order_by(TokenRow.created_at.desc(), TokenRow.id.desc()).limit(limit))).all()


async def usable(session: AsyncSession, at: datetime) -> Sequence[TokenRow]:
    """Return the tokens of all projects that are neither revoked nor expired."""
    not_expired = or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > at)
    query = select(TokenRow).where(TokenRow.revoked_at.is_(None), not_expired).order_by(TokenRow.digest)
    return (await session.scalars(query)).all()

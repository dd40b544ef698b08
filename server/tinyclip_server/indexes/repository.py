"""Queries over indexes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import IndexState

from tinyclip_server.tables import IndexRow

UNSETTLED = (IndexState.BUILDING, IndexState.DELETING)


async def find(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> IndexRow | None:
    query = select(IndexRow).where(IndexRow.project == project, IndexRow.name == name)
    return await session.scalar(query.with_for_update() if lock else query)


async def by_name(session: AsyncSession, project: str, after: str, limit: int) -> Sequence[IndexRow]:
    query = select(IndexRow).where(IndexRow.project == project, IndexRow.name > after)
    return (await session.scalars(query.order_by(IndexRow.name).limit(limit))).all()


async def unsettled(session: AsyncSession) -> Sequence[IndexRow]:
    """Of all projects, those that are being built or deleted."""
    return (await session.scalars(select(IndexRow).where(IndexRow.state.in_(UNSETTLED)).order_by(IndexRow.name))).all()

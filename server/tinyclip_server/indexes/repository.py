"""Queries over indexes."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import IndexState

from tinyclip_server.database.tables import IndexRow, IndexUpdateRow, ModelVersionRow
from tinyclip_server.http.pagination import Rows, fitting_rows

UNSETTLED = (IndexState.BUILDING, IndexState.UPDATING, IndexState.DELETING)
MAX_UPDATES = 1000
"""Updates that one Ray job applies."""


async def find(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> IndexRow | None:
    query = select(IndexRow).where(IndexRow.project == project, IndexRow.name == name)
    return await session.scalar(query.with_for_update() if lock else query)


async def by_name(session: AsyncSession, project: str, after: str, limit: int) -> Rows[IndexRow]:
    query = select(IndexRow).where(IndexRow.project == project, IndexRow.name > after)
    return await fitting_rows(session, query.order_by(IndexRow.name), IndexRow.spec, limit)


async def unsettled(session: AsyncSession) -> Sequence[IndexRow]:
    """Return the indexes of all projects that are being built, updated or deleted."""
    return (await session.scalars(select(IndexRow).where(IndexRow.state.in_(UNSETTLED)).order_by(IndexRow.name))).all()


async def pending_updates(session: AsyncSession, name: str) -> Sequence[IndexUpdateRow]:
    """Return updates that are not applied yet, oldest first, at most as many as one Ray job applies."""
    query = select(IndexUpdateRow).where(IndexUpdateRow.index_name == name).order_by(IndexUpdateRow.number)
    return (await session.scalars(query.limit(MAX_UPDATES))).all()


async def delete_applied_updates(session: AsyncSession, row: IndexRow) -> None:
    await session.execute(
        delete(IndexUpdateRow).where(IndexUpdateRow.index_name == row.name, IndexUpdateRow.number <= row.applied)
    )


async def embed_dim(session: AsyncSession, row: IndexRow) -> int:
    """Return the length of the vectors in an index."""
    version = await session.get_one(ModelVersionRow, (row.model_name, row.model_version))
    return int(version.document["embed_dim"])

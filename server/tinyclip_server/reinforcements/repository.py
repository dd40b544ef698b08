"""Queries over reinforcements."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import ReinforcementState

from tinyclip_server.database.tables import JobRow, ReinforcementRow
from tinyclip_server.datasets.repository import ACTIVE_JOBS, SHOWN_USERS
from tinyclip_server.http.pagination import Rows, fitting_rows

UNSETTLED = (ReinforcementState.QUEUED, ReinforcementState.RUNNING, ReinforcementState.DELETING)


async def find(session: AsyncSession, dataset: str, version: int, id: str, *, lock: bool = False) -> ReinforcementRow | None:
    query = select(ReinforcementRow).where(
        ReinforcementRow.id == id, ReinforcementRow.dataset_name == dataset, ReinforcementRow.dataset_version == version
    )
    return await session.scalar(query.with_for_update() if lock else query)


async def find_shared(session: AsyncSession, id: str) -> ReinforcementRow | None:
    """Return a reinforcement and lock it against changes, but not against others that call this."""
    return await session.scalar(select(ReinforcementRow).where(ReinforcementRow.id == id).with_for_update(read=True))


async def newest(
    session: AsyncSession, dataset: str, version: int, after: tuple[object, ...] | None, limit: int
) -> Rows[ReinforcementRow]:
    """Return the newest reinforcements of a version."""
    query = select(ReinforcementRow).where(
        ReinforcementRow.dataset_name == dataset, ReinforcementRow.dataset_version == version
    )
    if after:
        query = query.where(tuple_(ReinforcementRow.created_at, ReinforcementRow.id) < tuple_(*after))
    query = query.order_by(ReinforcementRow.created_at.desc(), ReinforcementRow.id.desc())
    return await fitting_rows(session, query, ReinforcementRow.spec, limit)


async def of_version(session: AsyncSession, dataset: str, version: int) -> Sequence[ReinforcementRow]:
    """Return the reinforcements of a version, oldest first."""
    query = select(ReinforcementRow).where(
        ReinforcementRow.dataset_name == dataset, ReinforcementRow.dataset_version == version
    )
    return (await session.scalars(query.order_by(ReinforcementRow.created_at, ReinforcementRow.id))).all()


async def unsettled(session: AsyncSession) -> Sequence[ReinforcementRow]:
    """Return the reinforcements of all projects that are queued, running or being deleted."""
    query = select(ReinforcementRow).where(ReinforcementRow.state.in_(UNSETTLED)).order_by(ReinforcementRow.created_at)
    return (await session.scalars(query)).all()


async def jobs_using(session: AsyncSession, id: str) -> Sequence[str]:
    """Return some of the jobs that have not ended and train on a reinforcement."""
    query = select(JobRow.id).where(*_trains_on([id])).order_by(JobRow.created_at)
    return (await session.scalars(query.limit(SHOWN_USERS))).all()


async def used_by_jobs(session: AsyncSession, ids: Sequence[str]) -> set[str]:
    """Return those of these reinforcements that a job trains on which has not ended."""
    return set((await session.scalars(select(_reinforcement()).where(*_trains_on(ids)).distinct())).all())


def _trains_on(ids: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
    return JobRow.state.in_(ACTIVE_JOBS), JobRow.deleted_at.is_(None), _reinforcement().in_(ids)


def _reinforcement() -> ColumnElement[str]:
    """Return the reinforcement that a job trains on, as a column."""
    reinforcement: ColumnElement[str] = JobRow.spec["data"]["train"]["reinforcement"].as_string()
    return reinforcement

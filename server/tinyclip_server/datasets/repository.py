"""Queries over data sets, their versions and aliases."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import DatasetState, JobState

from tinyclip_server.database.tables import (
    DatasetAliasRow,
    DatasetNameRow,
    DatasetRow,
    DatasetVersionRow,
    JobRow,
    ReinforcementRow,
)
from tinyclip_server.http.pagination import Rows, fitting_rows

UNSETTLED = (DatasetState.REGISTERING, DatasetState.DELETING)
ACTIVE_JOBS = tuple(state for state in JobState if not state.terminal)
SHOWN_USERS = 5
"""Jobs and reinforcements that a refused deletion names."""
MAX_REMOVED = 100
"""Deleted versions whose files are removed in one round."""


async def lock_name(session: AsyncSession, name: str) -> DatasetNameRow:
    """Return the row of a name, created if there is none: requests for one name wait for each other."""
    insert = pg_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    await session.execute(insert(DatasetNameRow).values(name=name, next_version=1).on_conflict_do_nothing())
    return await session.get_one(DatasetNameRow, name, with_for_update=True)


async def find(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> DatasetRow | None:
    query = select(DatasetRow).where(DatasetRow.project == project, DatasetRow.name == name)
    return await session.scalar(query.with_for_update() if lock else query)


async def find_shared(session: AsyncSession, project: str, name: str) -> DatasetRow | None:
    """Return a data set and lock it against changes, but not against others that call this."""
    query = select(DatasetRow).where(DatasetRow.project == project, DatasetRow.name == name)
    return await session.scalar(query.with_for_update(read=True))


async def by_name(session: AsyncSession, project: str, after: str, limit: int) -> Rows[DatasetRow]:
    query = select(DatasetRow).where(DatasetRow.project == project, DatasetRow.name > after)
    return await fitting_rows(session, query.order_by(DatasetRow.name), DatasetRow.spec, limit)


async def unsettled(session: AsyncSession) -> Sequence[DatasetRow]:
    """Return the data sets of all projects that are being registered or deleted."""
    return (await session.scalars(select(DatasetRow).where(DatasetRow.state.in_(UNSETTLED)).order_by(DatasetRow.name))).all()


async def version(session: AsyncSession, name: str, number: int) -> DatasetVersionRow | None:
    query = select(DatasetVersionRow).where(DatasetVersionRow.dataset_name == name, DatasetVersionRow.version == number)
    return await session.scalar(query.where(DatasetVersionRow.deleted_at.is_(None)))


async def newest_version(session: AsyncSession, name: str) -> DatasetVersionRow | None:
    query = select(DatasetVersionRow).where(DatasetVersionRow.dataset_name == name, DatasetVersionRow.deleted_at.is_(None))
    return await session.scalar(query.order_by(DatasetVersionRow.version.desc()).limit(1))


async def versions_before(session: AsyncSession, name: str, before: int | None, limit: int) -> Rows[DatasetVersionRow]:
    """Return versions below a number, newest first."""
    query = select(DatasetVersionRow).where(DatasetVersionRow.dataset_name == name, DatasetVersionRow.deleted_at.is_(None))
    if before is not None:
        query = query.where(DatasetVersionRow.version < before)
    return await fitting_rows(session, query.order_by(DatasetVersionRow.version.desc()), DatasetVersionRow.document, limit)


async def version_numbers(session: AsyncSession, names: Sequence[str]) -> dict[str, list[int]]:
    """Return the numbers of the versions of data sets, in order, by name."""
    columns = select(DatasetVersionRow.dataset_name, DatasetVersionRow.version)
    query = columns.where(DatasetVersionRow.dataset_name.in_(names), DatasetVersionRow.deleted_at.is_(None))
    found = defaultdict(list)
    for name, number in await session.execute(query.order_by(DatasetVersionRow.version)):
        found[name].append(number)
    return found


async def aliases(session: AsyncSession, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the aliases of data sets, with their versions, by name."""
    query = select(DatasetAliasRow).where(DatasetAliasRow.dataset_name.in_(names)).order_by(DatasetAliasRow.alias)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in await session.scalars(query):
        found[row.dataset_name][row.alias] = row.version
    return found


async def deleted_versions(session: AsyncSession) -> Sequence[DatasetVersionRow]:
    """Return versions of all projects that are deleted, but whose files may not be."""
    query = select(DatasetVersionRow).where(DatasetVersionRow.deleted_at.is_not(None)).order_by(DatasetVersionRow.deleted_at)
    return (await session.scalars(query.limit(MAX_REMOVED))).all()


async def used_numbers(session: AsyncSession, name: str) -> set[int]:
    """Return the numbers of a data set's versions, also of deleted ones, and of its newest registration."""
    versions = await session.scalars(select(DatasetVersionRow.version).where(DatasetVersionRow.dataset_name == name))
    newest = await session.scalars(select(DatasetRow.number).where(DatasetRow.name == name))
    return {*versions, *newest}


async def jobs_using(session: AsyncSession, name: str, version: int | None = None) -> Sequence[str]:
    """Return some of the jobs that have not ended and train on a data set, or on a version of it."""
    mine = [JobRow.dataset["name"].as_string() == name]
    if version is not None:
        mine.append(JobRow.dataset["version"].as_integer() == version)
    query = select(JobRow.id).where(JobRow.state.in_(ACTIVE_JOBS), JobRow.deleted_at.is_(None), *mine)
    return (await session.scalars(query.order_by(JobRow.created_at).limit(SHOWN_USERS))).all()


async def reinforcements_of(session: AsyncSession, name: str, version: int | None = None) -> Sequence[str]:
    """Return some of the reinforcements of a data set, or of a version of it."""
    query = select(ReinforcementRow.id).where(ReinforcementRow.dataset_name == name)
    if version is not None:
        query = query.where(ReinforcementRow.dataset_version == version)
    return (await session.scalars(query.order_by(ReinforcementRow.created_at).limit(SHOWN_USERS))).all()

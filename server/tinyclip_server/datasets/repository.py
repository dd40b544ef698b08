"""Queries over data sets, their versions and aliases."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Subquery, func, select
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


@dataclass(frozen=True)
class Users:
    """Some of the jobs that train on a data set or a version and have not ended, and some of its reinforcements."""

    jobs: Sequence[str] = ()
    reinforcements: Sequence[str] = ()


NO_USERS = Users()


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


async def users(session: AsyncSession, name: str, version: int | None = None) -> Users:
    """Return some of the users of a data set, or of a version of it, the oldest first."""

    async def ids(using: Subquery) -> Sequence[str]:
        mine = [using.c.name == name] if version is None else [using.c.name == name, using.c.version == version]
        return (await session.scalars(select(using.c.id).where(*mine).order_by(using.c.created_at).limit(SHOWN_USERS))).all()

    return Users(await ids(_training_jobs()), await ids(_reinforcements()))


async def users_of_versions(session: AsyncSession, names: Sequence[str]) -> dict[str, dict[int, Users]]:
    """Return one job and one reinforcement of each version that has some, by name of the data set and number."""

    async def ids(using: Subquery) -> dict[tuple[str, int], Sequence[str]]:
        version = using.c.name, using.c.version
        query = select(*version, func.min(using.c.id)).where(using.c.name.in_(names)).group_by(*version)
        return {(name, number): [id] for name, number, id in await session.execute(query)}

    jobs, reinforcements = await ids(_training_jobs()), await ids(_reinforcements())
    found: dict[str, dict[int, Users]] = defaultdict(dict)
    for name, version in {*jobs, *reinforcements}:
        found[name][version] = Users(jobs.get((name, version), ()), reinforcements.get((name, version), ()))
    return found


def _training_jobs() -> Subquery:
    """Return the jobs that have not ended and train on a version."""
    name, version = JobRow.dataset["name"].as_string(), JobRow.dataset["version"].as_integer()
    query = select(JobRow.id, JobRow.created_at, name.label("name"), version.label("version"))
    return query.where(JobRow.state.in_(ACTIVE_JOBS), JobRow.deleted_at.is_(None)).subquery()


def _reinforcements() -> Subquery:
    name, version = ReinforcementRow.dataset_name, ReinforcementRow.dataset_version
    return select(ReinforcementRow.id, ReinforcementRow.created_at, name.label("name"), version.label("version")).subquery()

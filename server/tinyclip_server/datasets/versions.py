"""Operations on versions of data sets. Each function works in the caller's transaction and only flushes."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import delete as delete_rows
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import dataset_report, dataset_version
from tinyclip.schemas import DatasetReport, DatasetVersion, DatasetVersionAction

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import DatasetAliasRow, DatasetRow, DatasetVersionRow
from tinyclip_server.datasets import repository, service
from tinyclip_server.datasets.actions import deleted, version_actions, version_refusal
from tinyclip_server.http.callers import Caller
from tinyclip_server.problems import NotFound

LATEST = "latest"


async def resolve(session: AsyncSession, project: str, name: str, which: str) -> DatasetVersionRow:
    """Return a version by number, alias or `latest`. Raises NotFound."""
    await service.get(session, project, name)
    if which == LATEST:
        row = await repository.newest_version(session, name)
    elif which.isdecimal():
        row = await repository.version(session, name, int(which)) if len(which) < 10 else None
    else:
        number = (await repository.aliases(session, [name])).get(name, {}).get(which)
        row = None if number is None else await repository.version(session, name, number)
    if row is None:
        known = await _known(session, name)
        raise NotFound(f"data set {name} has no version or alias {which}; {known}", code="no_such_version")
    return row


def expect_report(document: bytes | None, version: DatasetVersion, place: str) -> DatasetReport:
    """Parse the report of a version. Raises NotFound if the artifacts store lacks it."""
    if document is None:
        message = f"{place}, the report of {version.name}@{version.version}, is missing in the artifacts store"
        raise NotFound(message, code="file_missing")
    return DatasetReport.model_validate_json(document)


async def lock(
    session: AsyncSession, project: str, version: DatasetVersion, action: DatasetVersionAction, *, exclusive: bool = False
) -> None:
    """Lock a version's data set against its deletion, for an action; `exclusive`: also against others that call this.

    Raises Conflict if the version is deleted or does not allow it.
    """
    find = partial(repository.find, lock=True) if exclusive else repository.find_shared
    row = await find(session, project, version.name)
    if row is None or not await repository.version(session, version.name, version.version):
        raise deleted(f"{version.name}@{version.version}")
    if (refused := version_refusal(action, row, version.version)) is not None:
        raise refused


async def read_report(store: AsyncArtifactsStore, version: DatasetVersion) -> DatasetReport:
    """Read the report of a version. Raises NotFound, StoreUnavailable."""
    path = dataset_report(dataset_version(version.name, version.version))
    return expect_report(await store.read_if_exists(path), version, store.uri(path))


async def register(session: AsyncSession, row: DatasetRow, document: DatasetVersion) -> None:
    """Add the version that a registration was for. Repeated, it is a no-op."""
    checked = document.model_copy(update={"name": row.name, "version": row.number, "aliases": []})
    if await session.get(DatasetVersionRow, (row.name, row.number)) is None:
        stored = checked.model_dump(mode="json")
        new = DatasetVersionRow(
            dataset_name=row.name, version=row.number, document=stored, request=row.spec, created_at=checked.created_at
        )
        session.add(new)
        await session.flush()


async def delete(session: AsyncSession, row: DatasetRow, version: DatasetVersionRow) -> None:
    """Hide a version and remove its aliases; its files are removed later. The data set must be locked. Raises Conflict."""
    users = await repository.users(session, row.name, version.version)
    if (refused := version_refusal("delete", row, version.version, users)) is not None:
        raise refused
    version.deleted_at = now()
    mine = (DatasetAliasRow.dataset_name == version.dataset_name, DatasetAliasRow.version == version.version)
    await session.execute(delete_rows(DatasetAliasRow).where(*mine))
    await session.flush()


async def views(
    session: AsyncSession, caller: Caller, dataset: DatasetRow, rows: Sequence[DatasetVersionRow]
) -> dict[int, DatasetVersion]:
    """Return the documents of versions of a data set for a caller, by number."""
    aliases = (await repository.aliases(session, [dataset.name])).get(dataset.name, {})
    users = (await repository.users_of_versions(session, [dataset.name])).get(dataset.name, {})
    return {row.version: view(row, aliases, version_actions(caller, dataset, row.version, users)) for row in rows}


def view(
    row: DatasetVersionRow, aliases: dict[str, int], actions: Sequence[DatasetVersionAction] = ()
) -> DatasetVersion:
    mine = [alias for alias, version in aliases.items() if version == row.version]
    return DatasetVersion.model_validate({**row.document, "aliases": mine, "actions": list(actions)})


async def _known(session: AsyncSession, name: str) -> str:
    numbers = (await repository.version_numbers(session, [name])).get(name, [])
    if not numbers:
        return "it has none yet"
    aliases = ", ".join([LATEST, *(await repository.aliases(session, [name])).get(name, {})])
    return f"it has versions {', '.join(map(str, numbers))} and aliases {aliases}"

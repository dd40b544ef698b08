"""Operations on data sets. Each function works in the caller's transaction and only flushes."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Dataset, DatasetAction, DatasetPut, DatasetState

from tinyclip_server.backends.shards import expect_shards
from tinyclip_server.database.tables import DatasetAliasRow, DatasetRow
from tinyclip_server.datasets import repository
from tinyclip_server.datasets.actions import dataset_actions, refusal, version_refusal
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import begin_ray_job, mark_deleting
from tinyclip_server.http.services import Services
from tinyclip_server.models.teachers import pin
from tinyclip_server.problems import Conflict, NotFound

MAX_ATTEMPTS = 3
"""Ray jobs that may be lost, as when their node dies, before the request must be repeated."""


async def check(services: Services, project: str, body: DatasetPut) -> DatasetPut:
    """Check the addresses of a request, and return it with the version of its teacher resolved.

    Raises InvalidInput, TooManyRequests.
    """
    rules, addresses, source = services.settings.address_rules, services.addresses, body.source
    await addresses.expect_readable(project, rules, body)
    is_local = services.store.is_local
    await addresses.run(project, partial(expect_shards, source.shards, rules, is_local=is_local, captions=source.captions))
    if body.teacher is None:
        return body
    return body.model_copy(update={"teacher": await pin(services, project, body.teacher, "/teacher")})


async def put(session: AsyncSession, project: str, name: str, body: DatasetPut) -> DatasetRow:
    """Register a data set, or register it again, which makes a new version if shards or settings have changed.

    A repeated request for a registration in progress is a no-op; for one that has failed, it begins another attempt, which
    continues with what is done. Raises Conflict.
    """
    numbers = await repository.lock_name(session, name)
    row = await session.get(DatasetRow, name, with_for_update=True)
    if row is None:
        row = DatasetRow(name=name, project=project, version=0, number=0, attempt=0)
        session.add(row)
        same = False
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif (refused := refusal("register", row)) is not None:
        raise refused
    else:
        same = DatasetPut.model_validate(row.spec) == body
    if same and row.state == DatasetState.REGISTERING:
        return row
    if same and row.state == DatasetState.FAILED:
        _begin(row, -(-row.attempt // MAX_ATTEMPTS) * MAX_ATTEMPTS + 1)
    else:
        row.spec, row.number = body.model_dump(mode="json"), numbers.next_version
        numbers.next_version += 1
        _begin(row, 1)
    await session.flush()
    return row


def begin_attempt(row: DatasetRow) -> bool:
    """Begin the same registration again with another Ray job; return False if there were MAX_ATTEMPTS."""
    if row.attempt % MAX_ATTEMPTS == 0:
        return False
    _begin(row, row.attempt + 1)
    return True


def _begin(row: DatasetRow, attempt: int) -> None:
    row.attempt, row.progress, row.error = attempt, 0.0, None
    begin_ray_job(row, f"tc-dataset-{row.name}-v{row.number}-a{attempt}", DatasetState.REGISTERING)


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> DatasetRow:
    """Return a data set. Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no data set {name}", code="no_such_dataset")
    return row


async def delete(session: AsyncSession, row: DatasetRow) -> None:
    """Mark a data set for deletion; its row is deleted after its Ray job has ended and its files are removed.

    The data set must be locked. Repeated, it is a no-op. Raises Conflict while it is used.
    """
    if row.state == DatasetState.DELETING:
        return
    if (refused := refusal("delete", row, await repository.users(session, row.name))) is not None:
        raise refused
    mark_deleting(row)
    await session.flush()


async def set_alias(session: AsyncSession, row: DatasetRow, alias: str, version: int) -> None:
    """Set an alias to a version that exists. Raises Conflict."""
    if (refused := version_refusal("alias", row, version)) is not None:
        raise refused
    await session.merge(DatasetAliasRow(dataset_name=row.name, alias=alias, version=version))
    await session.flush()


async def remove_alias(session: AsyncSession, row: DatasetRow, alias: str) -> None:
    """Remove an alias. Raises NotFound, Conflict."""
    found = await session.get(DatasetAliasRow, (row.name, alias))
    if found is None:
        known = ", ".join((await repository.aliases(session, [row.name]))[row.name]) or "none"
        raise NotFound(f"data set {row.name} has no alias {alias}; it has {known}", code="no_such_alias")
    if (refused := version_refusal("alias", row, found.version)) is not None:
        raise refused
    await session.delete(found)
    await session.flush()


async def views(session: AsyncSession, caller: Caller, rows: Sequence[DatasetRow]) -> dict[str, Dataset]:
    """Return the documents of data sets for a caller, by name."""
    names = [row.name for row in rows]
    numbers, aliases = await repository.version_numbers(session, names), await repository.aliases(session, names)
    users = await repository.users_of_versions(session, names)

    def one(row: DatasetRow) -> Dataset:
        actions = dataset_actions(caller, row, users.get(row.name, {}))
        return _view(row, numbers.get(row.name, []), aliases.get(row.name, {}), actions)

    return {row.name: one(row) for row in rows}


async def view(session: AsyncSession, caller: Caller, row: DatasetRow) -> Dataset:
    return (await views(session, caller, [row]))[row.name]


def etag(row: DatasetRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and its progress after it."""
    return f"{row.version}.{row.state}-{row.next_segment}"


def _view(row: DatasetRow, versions: list[int], aliases: dict[str, int], actions: list[DatasetAction]) -> Dataset:
    return Dataset.model_validate({
        "name": row.name, "state": row.state, "latest": versions[-1] if versions else None, "aliases": aliases,
        "versions": versions, "source": row.spec["source"], "holdout": row.spec["holdout"], "progress": row.progress,
        "message": row.message, "error": row.error, "ray_submission_id": row.ray_submission_id, "actions": actions,
        "created_at": row.created_at, "updated_at": row.updated_at,
    })

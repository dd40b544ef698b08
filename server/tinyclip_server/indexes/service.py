"""What can be done with indexes. Each function works in the caller's transaction and only flushes."""

import time

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Index, IndexPut, IndexState

from tinyclip_server.backends.data_roots import expect_inside, of_index
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import IndexRow, IndexUpdateRow
from tinyclip_server.http.resources import ask_for_the_end
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import database, repository
from tinyclip_server.indexes.shards import expect_shards
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, NotFound

MOST_ATTEMPTS = 3
"""Jobs that may end without a last word, as when their node dies, before somebody has to ask again."""


async def check(services: Services, body: IndexPut) -> None:
    """Whether the pictures are there, where they may be, and the database that is asked for. Raises InvalidInput, Unavailable."""
    if body.source is not None:
        await expect_inside(services.settings.data_roots, of_index(body.source))
        await expect_shards(body.source, services.store, allow_private=services.settings.allow_private_urls)
    if body.store == "pgvector":
        await database.expect_fit(services.settings.index_database_url)


async def put(session: AsyncSession, project: str, name: str, body: IndexPut) -> IndexRow:
    """Build an index, or build it anew; what it was answers until the new build is there.

    Asking again for what is being built changes nothing, nor does it where there are no shards to build from; asking again for
    what has failed, a build or an update, goes on with it. Raises NotFound for the model, Conflict.
    """
    model_name, model_version = await models.resolve(session, project, body.model)
    row = await session.get(IndexRow, name, with_for_update=True)
    spec = body.model_dump(mode="json")
    same = row is not None and _asked(row.spec, row.model_name, row.model_version) == _asked(spec, model_name, model_version)
    if row is None:
        row = IndexRow(
            name=name, project=project, spec=spec, model_name=model_name, model_version=model_version, version=0, build=0
        )
        session.add(row)
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif row.state == IndexState.DELETING:
        raise Conflict(f"index {name} is being deleted; wait until GET answers 404", code="index_deleting")
    elif same and row.state != IndexState.FAILED and (row.state == IndexState.BUILDING or body.source is None):
        return row
    elif body.source is None and not same:
        _expect_nothing_to_lose(row)
    row.spec, row.model_name, row.model_version = spec, model_name, model_version
    if row.state == IndexState.FAILED and same:
        fresh = -(-row.attempt // MOST_ATTEMPTS) * MOST_ATTEMPTS + 1
        if _is_built(row):  # what failed was an update: the items that came without shards are in the index alone
            begin_updates(row, fresh)
        else:
            begin_job(row, IndexState.BUILDING, f"b{row.build}", fresh)
    else:
        begin_build(row)
    await session.flush()
    return row


def _expect_nothing_to_lose(row: IndexRow) -> None:
    """A build without shards begins empty: embeddings of one model are none of another's. Raises Conflict."""
    if row.count or row.updates > row.applied:
        held = f"{row.count:,} items and {row.updates - row.applied:,} changes that wait"
        way_out = "give the shards that hold them (source), choose another name, or DELETE it first"
        detail = f"index {row.name} holds {held}, and a build without source would begin empty; {way_out}"
        raise Conflict(detail, code="index_holds_items")


def begin_build(row: IndexRow) -> None:
    """A new build under a number that was never used, not even by a deleted index of this name: Ray knows jobs by it."""
    row.build = max(row.build + 1, int(time.time()))
    row.progress = 0.0
    begin_job(row, IndexState.BUILDING, f"b{row.build}")


def begin_updates(row: IndexRow, attempt: int = 1) -> None:
    """Apply what is waiting."""
    begin_job(row, IndexState.UPDATING, f"b{row.build}-u{row.updates}", attempt)


def begin_job(row: IndexRow, state: IndexState, job: str, attempt: int = 1) -> None:
    row.attempt = attempt
    row.ray_submission_id = f"{_prefix(row)}{job}" + (f"-a{attempt}" if attempt > 1 else "")
    row.submitted, row.next_segment = False, 1
    row.state, row.message, row.updated_at = state, "", now()
    row.version += 1


def begin_attempt(row: IndexRow) -> bool:
    """The same work as another job; False if there were enough of them."""
    if row.attempt % MOST_ATTEMPTS == 0:
        return False
    begin_job(row, IndexState(row.state), job_of(row).partition("-a")[0], row.attempt + 1)
    return True


def job_of(row: IndexRow) -> str:
    """What workers call the row's job."""
    assert row.ray_submission_id is not None
    return row.ray_submission_id.removeprefix(_prefix(row))


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> IndexRow:
    """Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no index {name}", code="no_such_index")
    return row


def expect_changeable(row: IndexRow) -> None:
    """Raises Conflict."""
    if row.state == IndexState.DELETING:
        raise Conflict(f"index {row.name} is being deleted", code="index_deleting")
    if row.state == IndexState.FAILED:
        way_out = "PUT it again and then send the change again"
        raise Conflict(f"index {row.name} has failed and takes no changes: {row.message}; {way_out}", code="index_failed")


async def accept_update(session: AsyncSession, row: IndexRow, file: str) -> None:
    """An update whose file is in the store: with the transaction it will be applied, once. Raises Conflict."""
    expect_changeable(row)
    row.updates += 1
    session.add(IndexUpdateRow(index_name=row.name, number=row.updates, file=file))
    row.updated_at = now()
    if row.state == IndexState.READY:
        begin_updates(row)
    await session.flush()


async def delete(session: AsyncSession, row: IndexRow) -> None:
    """Ask for the end; the row goes when its job has ended and its files are removed."""
    ask_for_the_end(row)
    await session.flush()


def view(row: IndexRow) -> Index:
    return Index.model_validate({
        "name": row.name, "model": f"{row.model_name}@{row.model_version}", "state": row.state, "kind": row.kind,
        "store": row.spec.get("store", "files"),
        "recall": row.recall, "count": row.count, "progress": row.progress, "message": row.message, "updates": row.updates,
        "applied_updates": row.applied, "pending_updates": row.updates - row.applied, "rejected": row.rejected,
        "created_at": row.created_at, "updated_at": row.updated_at,
    })  # fmt: skip


def etag(row: IndexRow) -> str:
    """Before the dot what a user decides, after it what became of that."""
    return f"{row.version}.{row.state}-{row.next_segment}-{row.updates}"


def _asked(spec: dict[str, object], model_name: str, model_version: int) -> tuple[object, ...]:
    return spec["source"], spec.get("kind", "auto"), spec.get("store", "files"), model_name, model_version


def _is_built(row: IndexRow) -> bool:
    """Whether the newest build is there; what failed after it was an update."""
    return row.progress >= 1.0


def _prefix(row: IndexRow) -> str:
    return f"tc-index-{row.name}-"

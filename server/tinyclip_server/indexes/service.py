"""What can be done with indexes. Each function works in the caller's transaction and only flushes."""

import time

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Index, IndexPut, IndexState

from tinyclip_server.artifacts import Store
from tinyclip_server.db import now
from tinyclip_server.indexes import repository
from tinyclip_server.indexes.shards import expect_shards
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, InvalidInput, NotFound
from tinyclip_server.resources import ask_for_the_end
from tinyclip_server.tables import IndexRow


async def check(store: Store, body: IndexPut, *, allow_private: bool = False) -> None:
    """Whether the pictures are said and there. Raises InvalidInput."""
    if body.source is None:
        raise InvalidInput.field("/source", None, 'say which pictures to index: {"source": {"shards": "…"}}')
    await expect_shards(body.source, store, allow_private=allow_private)


async def put(session: AsyncSession, project: str, name: str, body: IndexPut) -> IndexRow:
    """Build an index, or build it anew; the old build answers until the new one is there.

    Asking again for what is being built changes nothing. Raises NotFound for the model, Conflict.
    """
    model_name, model_version = await models.resolve(session, project, body.model)
    row = await session.get(IndexRow, name, with_for_update=True)
    spec = body.model_dump(mode="json")
    if row is None:
        row = IndexRow(
            name=name, project=project, spec=spec, model_name=model_name, model_version=model_version, version=0, build=0
        )
        session.add(row)
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif row.state == IndexState.DELETING:
        raise Conflict(f"index {name} is being deleted; wait until GET answers 404", code="index_deleting")
    elif row.state == IndexState.BUILDING and (row.spec["source"], row.model_name, row.model_version) == (
        spec["source"], model_name, model_version,
    ):
        return row
    row.spec, row.model_name, row.model_version = spec, model_name, model_version
    begin_build(row)
    await session.flush()
    return row


def begin_build(row: IndexRow) -> None:
    """A new build under a number that was never used, not even by a deleted index of this name: Ray knows jobs by it."""
    row.build = max(row.build + 1, int(time.time()))
    row.ray_submission_id = f"tc-index-{row.name}-b{row.build}"
    row.submitted, row.next_segment, row.progress = False, 1, 0.0
    row.state, row.message, row.updated_at = IndexState.BUILDING, "", now()
    row.version += 1


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> IndexRow:
    """Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no index {name}", code="no_such_index")
    return row


async def delete(session: AsyncSession, row: IndexRow) -> None:
    """Ask for the end; the row goes when its job has ended and its files are removed."""
    ask_for_the_end(row)
    await session.flush()


def view(row: IndexRow) -> Index:
    return Index(
        name=row.name, model=f"{row.model_name}@{row.model_version}", state=IndexState(row.state), count=row.count,
        progress=row.progress, message=row.message, created_at=row.created_at, updated_at=row.updated_at,
    )


def etag(row: IndexRow) -> str:
    """Before the dot what a user decides, after it what became of that."""
    return f"{row.version}.{row.state}-{row.next_segment}"

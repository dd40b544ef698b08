"""Operations on indexes. Each function works in the caller's transaction and only flushes."""

import time
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Index, IndexPut, IndexState, ModelVersion

from tinyclip_server.backends.shards import expect_shards
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import IndexRow, IndexUpdateRow
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import begin_ray_job, mark_deleting
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import database, repository
from tinyclip_server.indexes.actions import allowed, refusal
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, InvalidInput, NotFound

MAX_ATTEMPTS = 3
"""Ray jobs that may be lost, as when their node dies, before the request must be repeated."""


async def check(services: Services, project: str, body: IndexPut) -> None:
    """Check the source of a build and the requested database. Raises InvalidInput, TooManyRequests, Unavailable."""
    if body.source is not None:
        rules, addresses = services.settings.address_rules, services.addresses
        await addresses.expect_readable(project, rules, body)
        await addresses.run(project, partial(expect_shards, body.source.shards, rules, is_local=services.store.is_local))
    if body.store == "pgvector":
        await database.expect_fit(services.settings.index_database_url)


async def put(session: AsyncSession, project: str, name: str, body: IndexPut) -> IndexRow:
    """Build an index, or rebuild it; the older build answers searches until the new one is ready.

    A repeated request for a build in progress, or without shards, is a no-op. For a build or an update that has failed, it
    begins another attempt. Raises NotFound for the model, Conflict.
    """
    model_name, model_version = await models.resolve(session, project, body.model)
    if body.dimensions is not None:
        _expect_size(body.dimensions, await models.get_version(session, project, model_name, str(model_version)))
    row = await session.get(IndexRow, name, with_for_update=True)
    spec = body.model_dump(mode="json")
    same = row is not None and _build_key(row.spec, row.model_name, row.model_version) == _build_key(
        spec, model_name, model_version
    )
    if row is None:
        row = IndexRow(
            name=name, project=project, spec=spec, model_name=model_name, model_version=model_version, version=0, build=0
        )
        session.add(row)
    elif row.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")
    elif (refused := refusal("build", row)) is not None:
        raise refused
    elif same and row.state != IndexState.FAILED and (row.state == IndexState.BUILDING or body.source is None):
        return row
    elif body.source is None and not same:
        _expect_empty(row)
    row.spec, row.model_name, row.model_version = spec, model_name, model_version
    if row.state == IndexState.FAILED and same:
        attempt = -(-row.attempt // MAX_ATTEMPTS) * MAX_ATTEMPTS + 1
        if _is_built(row):  # an update failed: a new build would lose items that are not in the shards
            begin_updates(row, attempt)
        else:
            begin_job(row, IndexState.BUILDING, f"b{row.build}", attempt)
    else:
        begin_build(row)
    await session.flush()
    return row


def _expect_size(dimensions: int, version: ModelVersion) -> None:
    """Raise InvalidInput unless a model was trained for embeddings of that size."""
    if dimensions not in (version.embed_dim, *version.embedding_sizes):
        sizes = ", ".join(map(str, version.embedding_sizes)) or f"{version.embed_dim} only"
        message = f"{version.name}@{version.version} was trained for {sizes}; give one of these, or omit dimensions"
        raise InvalidInput.field("/dimensions", dimensions, message)


def _expect_empty(row: IndexRow) -> None:
    """Raise Conflict if the index holds items: a build of another model without shards would begin empty."""
    if row.count or row.updates > row.applied:
        held = f"{row.count:,} items and {row.updates - row.applied:,} pending updates"
        remedy = "give the shards with these items (source), choose another name, or DELETE the index first"
        detail = f"index {row.name} holds {held}, and a build without source would begin empty; {remedy}"
        raise Conflict(detail, code="index_holds_items")


def begin_build(row: IndexRow) -> None:
    """Begin a build. Its number, part of the Ray job's id, was never used, not even by a deleted index of this name."""
    row.build = max(row.build + 1, int(time.time()))
    row.progress = 0.0
    begin_job(row, IndexState.BUILDING, f"b{row.build}")


def begin_updates(row: IndexRow, attempt: int = 1) -> None:
    """Begin to apply the pending updates."""
    begin_job(row, IndexState.UPDATING, f"b{row.build}-u{row.updates}", attempt)


def begin_job(row: IndexRow, state: IndexState, job: str, attempt: int = 1) -> None:
    """Begin an attempt of a build or an update."""
    row.attempt = attempt
    begin_ray_job(row, f"{_prefix(row)}{job}" + (f"-a{attempt}" if attempt > 1 else ""), state)


def begin_attempt(row: IndexRow) -> bool:
    """Begin the same work again with another Ray job; return False if there were MAX_ATTEMPTS."""
    if row.attempt % MAX_ATTEMPTS == 0:
        return False
    begin_job(row, IndexState(row.state), job_of(row).partition("-a")[0], row.attempt + 1)
    return True


def job_of(row: IndexRow) -> str:
    """Return the name of the row's Ray job for workers."""
    assert row.ray_submission_id is not None
    return row.ray_submission_id.removeprefix(_prefix(row))


async def get(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> IndexRow:
    """Return an index. Raises NotFound."""
    row = await repository.find(session, project, name, lock=lock)
    if row is None:
        raise NotFound(f"there is no index {name}", code="no_such_index")
    return row


def expect_changeable(row: IndexRow) -> None:
    """Raise Conflict if an index accepts no updates."""
    if (refused := refusal("update", row)) is not None:
        raise refused


async def accept_update(session: AsyncSession, row: IndexRow, file: str) -> None:
    """Accept an update whose file is in the store; once committed, it is applied exactly once. Raises Conflict."""
    expect_changeable(row)
    row.updates += 1
    session.add(IndexUpdateRow(index_name=row.name, number=row.updates, file=file))
    row.updated_at = now()
    if row.state == IndexState.READY:
        begin_updates(row)
    await session.flush()


async def delete(session: AsyncSession, row: IndexRow) -> None:
    """Mark an index for deletion; its row is deleted after its Ray job has ended and its files are removed. Repeated: a no-op."""
    if refusal("delete", row) is None:
        mark_deleting(row)
        await session.flush()


def view(row: IndexRow, caller: Caller) -> Index:
    return Index.model_validate({
        "name": row.name, "model": f"{row.model_name}@{row.model_version}", "state": row.state, "kind": row.kind,
        "store": row.spec.get("store", "files"), "codes": row.spec.get("codes", "float"),
        "dimensions": row.spec.get("dimensions"), "bytes": row.bytes, "search_ms": row.search_ms,
        "recall": row.recall, "count": row.count, "progress": row.progress, "message": row.message, "updates": row.updates,
        "applied_updates": row.applied, "pending_updates": row.updates - row.applied, "rejected": row.rejected,
        "actions": allowed(caller, row), "created_at": row.created_at, "updated_at": row.updated_at,
    })  # fmt: skip


def etag(row: IndexRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and its progress after it."""
    return f"{row.version}.{row.state}-{row.next_segment}-{row.updates}"


def stamp(row: IndexRow) -> str:
    """Return a text that changes whenever the newest generation of an index is known to have changed."""
    return f"{row.build}-{row.applied}-{row.progress >= 1.0:d}-{row.count}-{etag(row)}"


def _build_key(spec: dict[str, object], model_name: str, model_version: int) -> tuple[object, ...]:
    kept = spec.get("store", "files"), spec.get("codes", "float"), spec.get("dimensions")
    return spec["source"], spec.get("kind", "auto"), kept, model_name, model_version


def _is_built(row: IndexRow) -> bool:
    """Return whether the newest build is complete; what failed after it was an update."""
    return row.progress >= 1.0


def _prefix(row: IndexRow) -> str:
    return f"tc-index-{row.name}-"

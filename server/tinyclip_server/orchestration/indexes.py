"""Follows each index from a request to its end, builds and updates alike; how is in `ray_work.py`."""

from collections.abc import Sequence
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexRequest, UpdateFile, WorkerEvent
from tinyclip.artifacts.paths import index_folder, index_job_events, model_version
from tinyclip.schemas import IndexKind, IndexSource, IndexState, IndexStore

from tinyclip_server.database.tables import IndexRow, IndexUpdateRow
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import database, repository, service
from tinyclip_server.orchestration.follower import Seen, Work, follow_all

SHOWN_REJECTED = 20


async def reconcile(services: Services) -> None:
    """One round over all indexes that are being built, changed or deleted."""
    async with services.db.read() as session:
        rows = await repository.unsettled(session)
        works = {row.name: _work(services, row, await _updates(session, row), await _embed_dim(session, row)) for row in rows}
    await follow_all(services, rows, lambda row: works[row.name], _apply, deleting=IndexState.DELETING)


async def _updates(session: AsyncSession, row: IndexRow) -> Sequence[IndexUpdateRow] | None:
    return await repository.pending_updates(session, row.name) if row.state == IndexState.UPDATING else None


async def _embed_dim(session: AsyncSession, row: IndexRow) -> int:
    return 0 if row.state == IndexState.DELETING else await repository.embed_dim(session, row)


def _work(services: Services, row: IndexRow, updates: Sequence[IndexUpdateRow] | None, embed_dim: int) -> Work:
    job = service.job_of(row)
    kind: IndexKind = row.spec.get("kind", "auto")
    store: IndexStore = row.spec.get("store", "files")
    request = IndexRequest(
        name=row.name,
        job=job,
        build=row.build,
        model=f"{row.model_name}@{row.model_version}",
        model_uri=services.store.uri(model_version(row.model_name, row.model_version)),
        embed_dim=embed_dim,
        kind=kind,
        store=store,
        source=IndexSource.model_validate(row.spec["source"]) if row.spec["source"] else None,
        applied=row.applied,
        updates=None if updates is None else [UpdateFile(number=update.number, file=update.file) for update in updates],
    )
    return Work(
        kind="index",
        arguments=["--index", row.name, "--job", job],
        title=f"index {row.name}",
        metadata={"tinyclip_index": row.name},
        folder=index_folder(row.name),
        events=index_job_events(row.name, job),
        request=request.model_dump(mode="json"),
        release=partial(database.drop_tables, services.settings.index_database_url, services.store, row.name),
    )


async def _apply(session: AsyncSession, row: IndexRow, seen: Seen) -> None:
    for event in seen.events:
        await _apply_event(session, row, event)
    if row.state not in (IndexState.BUILDING, IndexState.UPDATING):
        return
    if seen.refused is not None:
        row.state, row.message = IndexState.FAILED, f"Ray refused the job: {seen.refused}"
    elif seen.ended is not None:
        lost = f"{row.ray_submission_id} {seen.ended.lower()} without a word"
        if service.begin_attempt(row):
            row.message = f"{lost}; attempt {row.attempt} begins"
        else:
            row.state, row.message = IndexState.FAILED, f"{lost}, as the attempts before it; Ray has its log. PUT again to go on"


async def _apply_event(session: AsyncSession, row: IndexRow, event: WorkerEvent) -> None:
    if event.type == "index.progress":
        _show_progress(row, event)
    elif event.type == "index.finished":
        row.state, row.progress, row.message = IndexState.READY, 1.0, event.message
        _show_generation(row, event)
        if row.updates > row.applied:
            service.begin_updates(row)
            row.message = event.message
    elif event.type == "index.updated":
        row.message, row.applied = "", event.data["applied"]
        told = [item for item in event.data["rejected"] if item not in row.rejected]
        row.rejected = [*told, *row.rejected][:SHOWN_REJECTED]
        _show_generation(row, event)
        await repository.delete_applied_updates(session, row)
        if event.data["last"]:
            row.state = IndexState.READY
            if row.updates > row.applied:
                service.begin_updates(row)
    elif event.type == "index.failed":
        row.state, row.message = IndexState.FAILED, event.message


def _show_progress(row: IndexRow, event: WorkerEvent) -> None:
    done, total, linking = event.data["done"], event.data["total"], event.data.get("phase") == "linking"
    if row.state == IndexState.BUILDING:
        row.progress = min(0.99, done / total) if total else 0.0
    row.message = f"{done:,} items" + (f" of about {total:,}" if total else "") + (" linked" if linking else "")


def _show_generation(row: IndexRow, event: WorkerEvent) -> None:
    row.count, row.kind, row.recall = event.data["count"], event.data.get("kind", "exact"), event.data.get("recall")

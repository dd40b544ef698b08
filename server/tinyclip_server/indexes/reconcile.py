"""Follows each index from its request to its end; how is in `ray_work.py`."""

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import IndexState
from tinyclip.schemas.artifacts import WorkerEvent, index_build_events, index_folder, model_version

from tinyclip_server.indexes import repository
from tinyclip_server.ray_work import Seen, Work, follow_all
from tinyclip_server.services import Services
from tinyclip_server.tables import IndexRow


async def reconcile(services: Services) -> None:
    """One round over all indexes that are being built or deleted."""
    async with services.db.read() as session:
        rows = await repository.unsettled(session)
    await follow_all(services, rows, lambda row: _work(services, row), _apply, deleting=IndexState.DELETING)


def _work(services: Services, row: IndexRow) -> Work:
    model = f"{row.model_name}@{row.model_version}"
    uri = services.store.uri(model_version(row.model_name, row.model_version))
    return Work(
        module="tinyclip_workers.indexing",
        arguments=["--index", row.name, "--build", str(row.build)],
        title=f"index {row.name}",
        metadata={"tinyclip_index": row.name},
        folder=index_folder(row.name),
        events=index_build_events(row.name, row.build),
        request={"name": row.name, "build": row.build, "model": model, "model_uri": uri, "source": row.spec["source"]},
    )


async def _apply(session: AsyncSession, row: IndexRow, seen: Seen) -> None:
    for event in seen.events:
        _apply_event(row, event)
    if row.state != IndexState.BUILDING:
        return
    if seen.refused is not None:
        row.state, row.message = IndexState.FAILED, f"Ray refused the build: {seen.refused}"
    elif seen.ended is not None:
        row.state = IndexState.FAILED
        row.message = f"the build's job {row.ray_submission_id} {seen.ended.lower()} without a word; Ray has its log. PUT again"


def _apply_event(row: IndexRow, event: WorkerEvent) -> None:
    if event.type == "index.progress":
        done, total = event.data["done"], event.data["total"]
        row.progress = min(0.99, done / total) if total else 0.0
        row.message = f"{done:,} items" + (f" of about {total:,}" if total else "")
    elif event.type == "index.finished":
        row.state, row.progress, row.count, row.message = IndexState.READY, 1.0, event.data["count"], event.message
    elif event.type == "index.failed":
        row.state, row.message = IndexState.FAILED, event.message

"""Follows each index through its builds and updates."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexRequest, UpdateFile, WorkerEvent
from tinyclip.artifacts.paths import index_folder, index_job_events, index_request, model_version
from tinyclip.schemas import IndexSource, IndexState, RejectedItem

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import database, repository, service
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob

SHOWN_REJECTED = 20


async def reconcile(services: Services) -> None:
    """Run one round over all indexes that are being built, updated or deleted."""
    await IndexFollower(services).reconcile()


class IndexFollower(Follower[IndexRow]):
    noun = "job"
    active = (IndexState.BUILDING, IndexState.UPDATING)
    deleting = IndexState.DELETING
    reuses_names = True

    async def unsettled(self, session: AsyncSession) -> Sequence[IndexRow]:
        return await repository.unsettled(session)

    async def job(self, session: AsyncSession, row: IndexRow) -> RayJob:
        job, request = service.job_of(row), await self._request(session, row)
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"index {row.name}",
            metadata={"tinyclip_index": row.name},
            module=[MODULE, "index"],
            arguments=["--index", row.name, "--job", job],
            request_path=index_request(row.name),
            request=lambda: request.model_dump_json().encode(),
            events=index_job_events(row.name, job),
        )

    async def _request(self, session: AsyncSession, row: IndexRow) -> IndexRequest:
        updates = await repository.pending_updates(session, row.name) if row.state == IndexState.UPDATING else None
        return IndexRequest(
            name=row.name,
            job=service.job_of(row),
            build=row.build,
            model=f"{row.model_name}@{row.model_version}",
            model_uri=self._services.store.uri(model_version(row.model_name, row.model_version)),
            embed_dim=0 if row.state == IndexState.DELETING else await repository.embed_dim(session, row),
            kind=row.spec.get("kind", "auto"),
            store=row.spec.get("store", "files"),
            codes=row.spec.get("codes", "float"),
            dimensions=row.spec.get("dimensions"),
            source=IndexSource.model_validate(row.spec["source"]) if row.spec["source"] else None,
            applied=row.applied,
            updates=None if updates is None else [UpdateFile(number=update.number, file=update.file) for update in updates],
        )

    def folders(self, row: IndexRow) -> Sequence[str]:
        return [index_folder(row.name)]

    async def release(self, row: IndexRow) -> str | None:
        return await database.drop_tables(self._services.settings.index_database_url, self._services.store, row.name)

    def retry(self, row: IndexRow) -> bool:
        return service.begin_attempt(row)

    def fail(self, row: IndexRow, code: str, message: str) -> None:
        remedy = ". PUT it again to continue" if code == "attempt_lost" else ""
        row.state, row.message = IndexState.FAILED, f"{message}{remedy}"

    async def apply_event(self, session: AsyncSession, row: IndexRow, event: WorkerEvent) -> None:
        if event.type == "index.progress":
            _show_progress(row, event)
        elif event.type == "index.finished":
            _show_generation(row, event)
            row.state, row.progress, row.message = IndexState.READY, 1.0, event.message
            if row.updates > row.applied:
                service.begin_updates(row)
                row.message = event.message
        elif event.type == "index.updated":
            applied, is_last = int(event.data["applied"]), event.data["last"]
            items = [RejectedItem.model_validate(item).model_dump() for item in event.data["rejected"]]
            _show_generation(row, event)
            row.message, row.applied = "", applied
            row.rejected = [*(item for item in items if item not in row.rejected), *row.rejected][:SHOWN_REJECTED]
            await repository.delete_applied_updates(session, row)
            if is_last:
                row.state = IndexState.READY
                if row.updates > row.applied:
                    service.begin_updates(row)
        elif event.type == "index.failed":
            row.state, row.message = IndexState.FAILED, event.message


def _show_progress(row: IndexRow, event: WorkerEvent) -> None:
    done, total, linking = event.data["done"], event.data["total"], event.data.get("phase") == "linking"
    message = f"{done:,} items" + (f" of about {total:,}" if total else "") + (" linked" if linking else "")
    fraction = min(0.99, done / total) if total else 0.0
    row.progress = fraction if row.state == IndexState.BUILDING else row.progress
    row.message = message


def _show_generation(row: IndexRow, event: WorkerEvent) -> None:
    count, kind = int(event.data["count"]), str(event.data.get("kind", "exact"))
    recall, size, cost = (_number(event.data.get(name)) for name in ("recall", "bytes", "search_ms"))
    row.count, row.kind, row.recall = count, kind, recall
    row.bytes, row.search_ms = None if size is None else int(size), cost


def _number(value: Any) -> float | None:
    return None if value is None else float(value)

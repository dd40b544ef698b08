"""Follows each export from its request to its files; how is in `ray_work.py`."""

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import export_events, export_folder, exported_files
from tinyclip.schemas import ExportError, ExportFormat, ExportState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import ExportRow
from tinyclip_server.exports import repository, service
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.follower import Seen, Work, follow_all

MOST_LOST = 3
"""Jobs that may end without a last word, as when their node dies."""


async def reconcile(services: Services) -> None:
    """One round over all exports that are being made or deleted."""
    async with services.db.read() as session:
        rows = await repository.unsettled(session)
    await follow_all(services, rows, _work, _apply, deleting=ExportState.DELETING)


def _work(row: ExportRow) -> Work:
    return Work(
        kind="export",
        arguments=["--export", row.id, "--attempt", str(row.attempt)],
        title=f"{row.name} export of {row.model_name}@{row.model_version}",
        metadata={"tinyclip_export": row.id},
        folder=export_folder(row.id),
        leaves=[exported_files(row.model_name, row.model_version, ExportFormat(row.format), row.int8)],
        events=export_events(row.id, row.attempt),
        request={**row.request, "attempt": row.attempt},
    )


async def _apply(session: AsyncSession, row: ExportRow, seen: Seen) -> None:
    for event in seen.events:
        await _apply_event(session, row, event)
    if row.state not in (ExportState.QUEUED, ExportState.RUNNING):
        return
    if seen.refused is not None:
        _fail(row, ExportError(code="ray_refused", message=f"Ray refused the export: {seen.refused}"))
    elif seen.ended is not None:
        lost = f"{row.ray_submission_id} {seen.ended.lower()} without a word"
        row.lost += 1
        if row.lost < MOST_LOST:
            service.begin_attempt(row, row.attempt + 1)
            row.message = f"{lost}; attempt {row.attempt} begins"
        else:
            _fail(row, ExportError(code="attempt_lost", message=f"{lost}, as the attempts before it; Ray has its log"))


async def _apply_event(session: AsyncSession, row: ExportRow, event: WorkerEvent) -> None:
    if row.state == ExportState.DELETING:  # whatever comes of it, its files are not shown
        return
    if event.type == "export.progress":
        row.state, row.progress, row.message = ExportState.RUNNING, min(0.99, event.data["fraction"]), event.message
    elif event.type == "export.failed":
        _fail(row, ExportError.model_validate({**event.data, "message": event.message}))
    elif event.type == "export.finished":
        row.document, row.error = event.data, None
        await service.list_files(session, row, event.data["files"])
        row.state, row.progress, row.message, row.finished_at = ExportState.SUCCEEDED, 1.0, event.message, now()


def _fail(row: ExportRow, error: ExportError) -> None:
    row.state, row.error, row.message = ExportState.FAILED, error.model_dump(mode="json"), error.message
    row.finished_at = now()

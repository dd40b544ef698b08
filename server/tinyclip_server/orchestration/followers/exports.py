"""Follows each export from its request to its files."""

import json
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import export_events, export_folder, export_request, exported_files
from tinyclip.schemas import ExportCheck, ExportError, ExportState, ModelFile

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import ExportRow
from tinyclip_server.exports import repository, service
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob

MAX_LOST = 3
"""Jobs that may end without a final event, as when their node dies."""


async def reconcile(services: Services) -> None:
    """Run one round over all exports that are in progress or being deleted."""
    await ExportFollower(services).reconcile()


class ExportFollower(Follower[ExportRow]):
    noun = "export"
    active = (ExportState.QUEUED, ExportState.RUNNING)
    deleting = ExportState.DELETING

    async def unsettled(self, session: AsyncSession) -> Sequence[ExportRow]:
        return await repository.unsettled(session)

    async def job(self, session: AsyncSession, row: ExportRow) -> RayJob:
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"{row.name} export of {row.model_name}@{row.model_version}",
            metadata={"tinyclip_export": row.id},
            module=[MODULE, "export"],
            arguments=["--export", row.id, "--attempt", str(row.attempt)],
            request_path=export_request(row.id),
            request=lambda: json.dumps({**row.request, "attempt": row.attempt}).encode(),
            events=export_events(row.id, row.attempt),
        )

    def folders(self, row: ExportRow) -> Sequence[str]:
        files = exported_files(row.model_name, row.model_version, row.name)
        return [files, export_folder(row.id)]

    def retry(self, row: ExportRow) -> bool:
        row.lost += 1
        if row.lost >= MAX_LOST:
            return False
        service.begin_attempt(row, row.attempt + 1)
        return True

    def fail(self, row: ExportRow, code: str, message: str) -> None:
        _fail(row, ExportError(code=code, message=message))

    async def apply_event(self, session: AsyncSession, row: ExportRow, event: WorkerEvent) -> None:
        if row.state == ExportState.DELETING:  # its files are not listed any more
            return
        if event.type == "export.progress":
            row.progress, row.message = min(0.99, float(event.data["fraction"])), event.message
            row.state = ExportState.RUNNING
        elif event.type == "export.failed":
            _fail(row, ExportError.model_validate({**event.data, "message": event.message}))
        elif event.type == "export.finished":
            files = [ModelFile.model_validate(file).model_dump() for file in event.data["files"]]
            ExportCheck.model_validate(event.data.get("check"))
            await service.list_files(session, row, files)
            row.document, row.error = event.data, None
            row.state, row.progress, row.message, row.finished_at = ExportState.SUCCEEDED, 1.0, event.message, now()


def _fail(row: ExportRow, error: ExportError) -> None:
    row.state, row.error, row.message = ExportState.FAILED, error.model_dump(mode="json"), error.message
    row.finished_at = now()

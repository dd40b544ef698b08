"""Follows each reinforcement from its request to its stored embeddings."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import ReinforcementDocument, ReinforcementRequest, WorkerEvent
from tinyclip.artifacts.paths import reinforcement_events, reinforcement_folder, reinforcement_request
from tinyclip.schemas import DatasetError, ReinforcementPost, ReinforcementState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import ReinforcementRow
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob
from tinyclip_server.reinforcements import repository, service

MAX_LOST = 3
"""Jobs that may end without a final event, as when their node dies, before the request must be repeated."""


async def reconcile(services: Services) -> None:
    """Run one round over all reinforcements that are in progress or being deleted."""
    await ReinforcementFollower(services).reconcile()


class ReinforcementFollower(Follower[ReinforcementRow]):
    noun = "reinforcement"
    active = (ReinforcementState.QUEUED, ReinforcementState.RUNNING)
    deleting = ReinforcementState.DELETING

    async def unsettled(self, session: AsyncSession) -> Sequence[ReinforcementRow]:
        return await repository.unsettled(session)

    async def job(self, session: AsyncSession, row: ReinforcementRow) -> RayJob:
        request = ReinforcementRequest(
            id=row.id, dataset=row.dataset_name, version=row.dataset_version, attempt=row.attempt,
            request=ReinforcementPost.model_validate(row.spec),
        )
        place = ["--dataset", row.dataset_name, "--version", str(row.dataset_version)]
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"reinforcement of {row.dataset_name}@{row.dataset_version}",
            metadata={"tinyclip_reinforcement": row.id},
            module=[MODULE, "reinforcement"],
            arguments=[*place, "--reinforcement", row.id, "--attempt", str(row.attempt)],
            request_path=reinforcement_request(_folder(row)),
            request=lambda: request.model_dump_json().encode(),
            events=reinforcement_events(_folder(row), row.attempt),
        )

    def folders(self, row: ReinforcementRow) -> Sequence[str]:
        return [_folder(row)]

    def retry(self, row: ReinforcementRow) -> bool:
        row.lost += 1
        if row.lost >= MAX_LOST:
            return False
        service.begin_attempt(row)
        return True

    def fail(self, row: ReinforcementRow, code: str, message: str) -> None:
        remedy = ". POST it again to continue" if code == "attempt_lost" else ""
        _fail(row, DatasetError(code=code, message=f"{message}{remedy}"))

    async def apply_event(self, session: AsyncSession, row: ReinforcementRow, event: WorkerEvent) -> None:
        if event.type == "reinforcement.progress":
            row.progress, row.message = min(0.99, float(event.data["fraction"])), event.message
            row.state = ReinforcementState.RUNNING
        elif event.type == "reinforcement.failed":
            _fail(row, DatasetError.model_validate({**event.data, "message": event.message}))
        elif event.type == "reinforcement.finished":
            row.document = ReinforcementDocument.model_validate(event.data).model_dump(mode="json")
            row.state, row.progress, row.message, row.finished_at = ReinforcementState.SUCCEEDED, 1.0, event.message, now()


def _folder(row: ReinforcementRow) -> str:
    return reinforcement_folder(row.dataset_name, row.dataset_version, row.id)


def _fail(row: ReinforcementRow, error: DatasetError) -> None:
    row.state, row.error, row.message = ReinforcementState.FAILED, error.model_dump(mode="json"), error.message
    row.finished_at = now()

"""Follows each evaluation from its request to its numbers."""

import json
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import evaluation_events, evaluation_folder, evaluation_request
from tinyclip.schemas import EvaluationError, EvaluationState, KeptPredictions, Scores

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository, service
from tinyclip_server.http.services import Services
from tinyclip_server.models import service as models
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob

MAX_ATTEMPTS = 3
"""Jobs in all, if they end without a final event, as when their node dies."""


async def reconcile(services: Services) -> None:
    """Run one round over all evaluations that are in progress or being deleted."""
    await EvaluationFollower(services).reconcile()


class EvaluationFollower(Follower[EvaluationRow]):
    noun = "evaluation"
    active = (EvaluationState.QUEUED, EvaluationState.RUNNING)
    deleting = EvaluationState.DELETING

    async def unsettled(self, session: AsyncSession) -> Sequence[EvaluationRow]:
        return await repository.unsettled(session)

    async def job(self, session: AsyncSession, row: EvaluationRow) -> RayJob:
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"evaluation of {row.model}",
            metadata={"tinyclip_evaluation": row.id},
            module=[MODULE, "evaluation"],
            arguments=["--evaluation", row.id, "--attempt", str(row.attempt)],
            request_path=evaluation_request(row.id),
            request=lambda: json.dumps(row.request).encode(),
            events=evaluation_events(row.id, row.attempt),
        )

    def folders(self, row: EvaluationRow) -> Sequence[str]:
        return [evaluation_folder(row.id)]

    def retry(self, row: EvaluationRow) -> bool:
        if row.attempt >= MAX_ATTEMPTS:
            return False
        service.begin_attempt(row, row.attempt + 1)
        return True

    def fail(self, row: EvaluationRow, code: str, message: str) -> None:
        _fail(row, EvaluationError(code=code, message=message))

    async def apply_event(self, session: AsyncSession, row: EvaluationRow, event: WorkerEvent) -> None:
        if event.type == "evaluation.started":
            row.state = EvaluationState.RUNNING
        elif event.type == "evaluation.progress":
            row.progress, row.message = min(0.99, float(event.data["fraction"] or 0.0)), event.message
        elif event.type == "evaluation.failed":
            _fail(row, EvaluationError.model_validate({**event.data, "message": event.message}))
        elif event.type == "evaluation.finished":
            await _finish(session, row, event)


async def _finish(session: AsyncSession, row: EvaluationRow, event: WorkerEvent) -> None:
    """Keep the numbers, also with the registered version that was evaluated."""
    results, message = event.data["results"], ""
    for scores in results.values():
        Scores.model_validate(scores)
    if row.model_name is not None and row.model_version is not None:
        teacher = event.data["models"].get("teacher", {}).get("sha256")
        predictions = {task: KeptPredictions.model_validate(each) for task, each in event.data.get("predictions", {}).items()}
        version = row.model_name, row.model_version
        kept = await models.add_evaluation(session, *version, row.id, results, teacher, predictions)
        message = f"{row.model} keeps what its training has measured as {', '.join(kept)}" if kept else ""
    row.results, row.message = results, message
    row.state, row.progress, row.finished_at = EvaluationState.SUCCEEDED, 1.0, now()


def _fail(row: EvaluationRow, error: EvaluationError) -> None:
    row.state, row.error, row.message = EvaluationState.FAILED, error.model_dump(mode="json"), error.message
    row.finished_at = now()

"""Follows each evaluation from its request to its numbers; how is in `ray_work.py`."""

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import evaluation_events, evaluation_folder
from tinyclip.schemas import EvaluationError, EvaluationState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository, service
from tinyclip_server.http.services import Services
from tinyclip_server.models import service as models
from tinyclip_server.orchestration.follower import Seen, Work, follow_all

MOST_ATTEMPTS = 3
"""Jobs that may end without a last word, as when their node dies."""


async def reconcile(services: Services) -> None:
    """One round over all evaluations that are being made or deleted."""
    async with services.db.read() as session:
        rows = await repository.unsettled(session)
    await follow_all(services, rows, _work, _apply, deleting=EvaluationState.DELETING)


def _work(row: EvaluationRow) -> Work:
    return Work(
        kind="evaluation",
        arguments=["--evaluation", row.id, "--attempt", str(row.attempt)],
        title=f"evaluation of {row.model}",
        metadata={"tinyclip_evaluation": row.id},
        folder=evaluation_folder(row.id),
        events=evaluation_events(row.id, row.attempt),
        request=row.request,
    )


async def _apply(session: AsyncSession, row: EvaluationRow, seen: Seen) -> None:
    for event in seen.events:
        await _apply_event(session, row, event)
    if row.state not in (EvaluationState.QUEUED, EvaluationState.RUNNING):
        return
    if seen.refused is not None:
        _fail(row, EvaluationError(code="ray_refused", message=f"Ray refused the evaluation: {seen.refused}"))
    elif seen.ended is not None and row.attempt < MOST_ATTEMPTS:
        lost = row.ray_submission_id
        service.begin_attempt(row, row.attempt + 1)
        row.message = f"{lost} {seen.ended.lower()} without a word; attempt {row.attempt} begins"
    elif seen.ended is not None:
        message = f"{row.ray_submission_id} {seen.ended.lower()} without a word, as the attempts before it; Ray has its log"
        _fail(row, EvaluationError(code="attempt_lost", message=message))


async def _apply_event(session: AsyncSession, row: EvaluationRow, event: WorkerEvent) -> None:
    if event.type == "evaluation.started":
        row.state = EvaluationState.RUNNING
    elif event.type == "evaluation.progress":
        row.progress, row.message = min(0.99, event.data["fraction"] or 0.0), event.message
    elif event.type == "evaluation.failed":
        _fail(row, EvaluationError.model_validate({**event.data, "message": event.message}))
    elif event.type == "evaluation.finished":
        row.results, row.message = event.data["results"], ""
        if row.model_name is not None and row.model_version is not None:
            teacher = event.data["models"].get("teacher", {}).get("sha256")
            kept = await models.add_evaluation(session, row.model_name, row.model_version, row.id, row.results, teacher)
            row.message = f"{row.model} keeps what its training has measured as {', '.join(kept)}" if kept else ""
        row.state, row.progress, row.finished_at = EvaluationState.SUCCEEDED, 1.0, now()


def _fail(row: EvaluationRow, error: EvaluationError) -> None:
    row.state, row.error, row.message = EvaluationState.FAILED, error.model_dump(mode="json"), error.message
    row.finished_at = now()

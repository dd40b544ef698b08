"""What can be done with evaluations. Each function works in the caller's transaction and only flushes."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import Evaluation, EvaluationPost, EvaluationState

from tinyclip_server.backends.data_roots import expect_inside, of_evaluation
from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository
from tinyclip_server.evaluations.models import Named, named
from tinyclip_server.http.resources import ask_for_the_end, new_id
from tinyclip_server.http.services import Services
from tinyclip_server.problems import NotFound


@dataclass(frozen=True)
class Checked:
    """An evaluation that can be made."""

    model: Named
    request: EvaluationRequest
    warnings: list[str]


async def check(services: Services, project: str, body: EvaluationPost) -> Checked:
    """Whether the models and the tasks' data are there and fit; the engine looks. Raises InvalidInput, Unavailable."""
    await expect_inside(services.settings.data_roots, of_evaluation(body))
    model = await named(services, project, body.model, "/model")
    against = await named(services, project, body.against, "/against") if body.against is not None else None
    request = EvaluationRequest(
        model=model.asked, against=against.asked if against else None, tasks=body.tasks, holdout=body.holdout
    )
    return Checked(model, request, await services.planner.check_evaluation(request))


async def create(session: AsyncSession, project: str, body: EvaluationPost, checked: Checked) -> EvaluationRow:
    """Queued; the next round of `reconcile` submits its job."""
    id = new_id("eval")
    name, version = checked.model.registered or (None, None)
    row = EvaluationRow(
        id=id, project=project, spec=body.model_dump(mode="json"), request=checked.request.model_dump(mode="json"),
        model=checked.model.asked.name, model_name=name, model_version=version, state=EvaluationState.QUEUED, version=0,
        warnings=checked.warnings, results={},
    )
    begin_attempt(row, 1)
    session.add(row)
    await session.flush()
    return row


def begin_attempt(row: EvaluationRow, number: int) -> None:
    row.attempt, row.ray_submission_id = number, f"tc-evaluation-{row.id}-a{number}"
    row.submitted, row.next_segment, row.progress = False, 1, 0.0
    row.version += 1


async def get(session: AsyncSession, project: str, id: str, *, lock: bool = False) -> EvaluationRow:
    """Raises NotFound."""
    row = await repository.find(session, project, id, lock=lock)
    if row is None:
        raise NotFound(f"there is no evaluation {id}", code="no_such_evaluation")
    return row


async def delete(session: AsyncSession, row: EvaluationRow) -> None:
    """Ask for the end; the row goes when its job has ended and its files are removed. A model version keeps its numbers."""
    ask_for_the_end(row)
    await session.flush()


def view(row: EvaluationRow) -> Evaluation:
    request = EvaluationRequest.model_validate(row.request)
    in_order = {task.name: row.results[task.name] for task in request.tasks if task.name in row.results}  # JSONB forgets it
    return Evaluation.model_validate({
        "id": row.id, "model": row.model, "against": request.against.name if request.against else None,
        "tasks": row.spec["tasks"], "holdout": row.spec["holdout"], "state": row.state, "progress": row.progress,
        "message": row.message, "warnings": row.warnings, "results": in_order, "error": row.error,
        "ray_submission_id": row.ray_submission_id, "created_at": row.created_at, "updated_at": row.updated_at,
        "finished_at": row.finished_at,
    })


def etag(row: EvaluationRow) -> str:
    """Before the dot what is to be done, after it what became of that."""
    return f"{row.version}.{row.state}-{row.next_segment}"

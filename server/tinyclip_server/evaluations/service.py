"""Operations on evaluations. Each function works in the caller's transaction and only flushes."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import EvaluatedModel, EvaluationRequest
from tinyclip.schemas import Evaluation, EvaluationPost, EvaluationState
from tinyclip.schemas.spec import TeacherSpec

from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository
from tinyclip_server.http.resources import begin_ray_job, mark_deleting, new_id
from tinyclip_server.http.services import Services
from tinyclip_server.models import service as models
from tinyclip_server.problems import ApiError, InvalidInput, NotFound

EXTERNAL_PREFIXES = ("local-dir:", "hf-hub:")
REGISTRY = "registry:"


@dataclass(frozen=True)
class ResolvedModel:
    """A model that was found by its name."""

    evaluated: EvaluatedModel
    registered: tuple[str, int] | None = None
    """Name and version of a registered model."""


@dataclass(frozen=True)
class CheckedEvaluation:
    """An evaluation that passed all checks."""

    model: ResolvedModel
    request: EvaluationRequest
    warnings: list[str]


async def check(services: Services, project: str, body: EvaluationPost) -> CheckedEvaluation:
    """Resolve the models and check the tasks' data, which the engine reads. Raises InvalidInput, Unavailable."""
    await services.addresses.expect_readable(project, services.settings.address_rules, body)
    model = await resolve_model(services, project, body.model, "/model")
    against = None
    if body.against is not None:
        against = (await resolve_model(services, project, body.against, "/against")).evaluated
    request = EvaluationRequest(model=model.evaluated, against=against, tasks=body.tasks, holdout=body.holdout)
    return CheckedEvaluation(model, request, await services.planner.check_evaluation(project, request))


async def resolve_model(services: Services, project: str, name: str, pointer: str) -> ResolvedModel:
    """Resolve `NAME@VERSION` or alias, `ARCHITECTURE/TAG`, `local-dir:…` or `hf-hub:…`. Raises InvalidInput."""
    if name.startswith(EXTERNAL_PREFIXES):
        return ResolvedModel(EvaluatedModel(name=name, source=TeacherSpec(model=name)))
    if "/" in name and not name.startswith(REGISTRY):
        architecture, _, tag = name.rpartition("/")
        if "." in tag:  # the engine would read it as the path of a file
            message = f"{tag} is no tag of open_clip's weights; give ARCHITECTURE/TAG, or a folder as local-dir:PATH"
            raise InvalidInput.field(pointer, name, message, code="unknown_model")
        return ResolvedModel(EvaluatedModel(name=name, source=TeacherSpec(model=architecture, pretrained=tag)))
    async with services.db.read() as session:
        try:
            model, version = await models.resolve(session, project, name.removeprefix(REGISTRY))
        except ApiError as error:
            forms = "NAME@VERSION of a registered model, ARCHITECTURE/TAG of open_clip, local-dir:PATH or hf-hub:ORG/NAME"
            message = f"{error.detail}; give {forms}"
            raise InvalidInput.field(pointer, name, message, code="unknown_model") from error
    source = TeacherSpec(model=f"{REGISTRY}{model}@{version}")
    return ResolvedModel(EvaluatedModel(name=f"{model}@{version}", source=source), (model, version))


async def create(session: AsyncSession, project: str, body: EvaluationPost, checked: CheckedEvaluation) -> EvaluationRow:
    """Queue an evaluation; its reconciler submits the Ray job."""
    id = new_id("eval")
    name, version = checked.model.registered or (None, None)
    row = EvaluationRow(
        id=id, project=project, spec=body.model_dump(mode="json"), request=checked.request.model_dump(mode="json"),
        model=checked.model.evaluated.name, model_name=name, model_version=version, state=EvaluationState.QUEUED, version=0,
        warnings=checked.warnings, results={},
    )
    begin_attempt(row, 1)
    session.add(row)
    await session.flush()
    return row


def begin_attempt(row: EvaluationRow, number: int) -> None:
    """Begin an evaluation, or begin it again after its Ray job was lost."""
    row.attempt, row.progress = number, 0.0
    begin_ray_job(row, f"tc-evaluation-{row.id}-a{number}", row.state)


async def get(session: AsyncSession, project: str, id: str, *, lock: bool = False) -> EvaluationRow:
    """Return an evaluation. Raises NotFound."""
    row = await repository.find(session, project, id, lock=lock)
    if row is None:
        raise NotFound(f"there is no evaluation {id}", code="no_such_evaluation")
    return row


async def delete(session: AsyncSession, row: EvaluationRow) -> None:
    """Mark an evaluation for deletion; its row is deleted after its Ray job has ended and its files are removed."""
    mark_deleting(row)
    if row.model_name is not None and row.model_version is not None:
        await models.forget_predictions(session, row.model_name, row.model_version, row.id)
    await session.flush()


def view(row: EvaluationRow) -> Evaluation:
    request = EvaluationRequest.model_validate(row.request)
    # JSONB does not keep the order of keys.
    names = [name for task in request.tasks for name in task.result_names()]
    results = {name: row.results[name] for name in names if name in row.results}
    return Evaluation.model_validate({
        "id": row.id, "model": row.model, "against": request.against.name if request.against else None,
        "tasks": row.spec["tasks"], "holdout": row.spec["holdout"], "state": row.state, "progress": row.progress,
        "message": row.message, "warnings": row.warnings, "results": results, "error": row.error,
        "ray_submission_id": row.ray_submission_id, "created_at": row.created_at, "updated_at": row.updated_at,
        "finished_at": row.finished_at,
    })


def etag(row: EvaluationRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and its progress after it."""
    return f"{row.version}.{row.state}-{row.next_segment}"

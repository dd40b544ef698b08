"""`/v1/evaluations`: create, find and delete evaluations."""

from fastapi import APIRouter, Response
from pydantic import BaseModel
from tinyclip.schemas import Evaluation, EvaluationPost, EvaluationState, Page

from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository, service
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.conditions import IfMatch, expect_match, quoted
from tinyclip_server.http.idempotency import Idempotent
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import Project, ReadSession, ServicesDep, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/evaluations", tags=["evaluations"])


@router.post("", status_code=201, response_model=Evaluation)
async def create(
    body: EvaluationPost, services: ServicesDep, project: Project, session: WriteSession, idempotent: Idempotent
) -> Response:
    """Evaluate a model, and optionally another one on the same images, in a Ray job. Invalid fields are named."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        row = await service.create(session, project, body, await service.check(services, project, body))
        return service.view(row), {"ETag": quoted(service.etag(row)), "Location": f"/v1/evaluations/{row.id}"}

    return await idempotent.respond(session, 201, make)


@router.get("", response_model=Page[Evaluation])
async def find(
    session: ReadSession, project: Project, paging: Paging, model: str | None = None, state: EvaluationState | None = None
) -> Page[Evaluation]:
    """List evaluations, newest first. `model` is the name that they show, `NAME@VERSION` for a registered model."""
    rows = await repository.newest(
        session, project, after=paging.after_newest(), limit=paging.page_size + 1, model=model, state=state
    )
    return paging.page(rows, service.view, lambda row: (row.created_at, row.id))


@router.get("/{evaluation_id}", response_model=Evaluation)
async def get(evaluation_id: str, session: ReadSession, project: Project) -> Response:
    """Get an evaluation."""
    return _response(await service.get(session, project, evaluation_id), 200)


@router.delete("/{evaluation_id}", status_code=202, response_model=Evaluation)
async def delete(evaluation_id: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Delete an evaluation and its files, stopping it if it runs.

    A model version keeps the metrics that it shows, but not the predictions for each image.
    """
    row = await service.get(session, project, evaluation_id, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(row, 202)


def _response(row: EvaluationRow, status: int) -> Response:
    return resource_response(service.view(row), service.etag(row), status)

"""`/v1/evaluations`: measure a model, look how far that is, see the numbers, forget them."""

from fastapi import APIRouter, Response
from pydantic import BaseModel
from tinyclip.schemas import Evaluation, EvaluationPost, EvaluationState, Page

from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.evaluations import repository, service
from tinyclip_server.http.conditions import IfMatch, expect_match, quoted
from tinyclip_server.http.idempotency import AnswerOnce
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import answer
from tinyclip_server.http.services import Project, ReadSession, Uses, WriteSession

router = APIRouter(prefix="/evaluations", tags=["evaluations"])


@router.post("", status_code=201, response_model=Evaluation)
async def create(
    body: EvaluationPost, services: Uses, project: Project, session: WriteSession, once: AnswerOnce
) -> Response:
    """Measure a model, and another one on the same images, with a Ray job. What cannot be measured is refused by field."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        row = await service.create(session, project, body, await service.check(services, project, body))
        return service.view(row), {"ETag": quoted(service.etag(row)), "Location": f"/v1/evaluations/{row.id}"}

    return await once(session, 201, make)


@router.get("", response_model=Page[Evaluation])
async def find(
    session: ReadSession, project: Project, paging: Paging, model: str | None = None, state: EvaluationState | None = None
) -> Page[Evaluation]:
    """Evaluations, newest first; `model` as they show it, `NAME@VERSION` for a registered one."""
    rows = await repository.newest(
        session, project, after=paging.after_newest(), limit=paging.page_size + 1, model=model, state=state
    )
    return paging.page(rows, service.view, lambda row: (row.created_at, row.id))


@router.get("/{evaluation_id}", response_model=Evaluation)
async def get(evaluation_id: str, session: ReadSession, project: Project) -> Response:
    return _answer(await service.get(session, project, evaluation_id), 200)


@router.delete("/{evaluation_id}", status_code=202, response_model=Evaluation)
async def delete(evaluation_id: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Stop it if it is under way, and forget it and its files; a model version keeps the numbers it shows."""
    row = await service.get(session, project, evaluation_id, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _answer(row, 202)


def _answer(row: EvaluationRow, status: int) -> Response:
    return answer(service.view(row), service.etag(row), status)

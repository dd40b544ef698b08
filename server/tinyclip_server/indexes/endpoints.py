"""`/v1/indexes`: build an index of pictures, change it item by item, look how far it is, remove it."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexUpdate
from tinyclip.schemas import Index, IndexItems, IndexPut, Page

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.conditions import IfMatch, expect_match, quoted
from tinyclip_server.http.idempotency import AnswerOnce, Once
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import answer
from tinyclip_server.http.services import Project, ReadSession, Services, Uses, WriteSession
from tinyclip_server.indexes import items, repository, service

router = APIRouter(prefix="/indexes", tags=["indexes"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Index)
async def put(name: Name, body: IndexPut, services: Uses, session: WriteSession, project: Project) -> Response:
    """Build an index from shards with a Ray job; what an older build holds stays searchable until it is done."""
    await service.check(services, body)
    return _answer(await service.put(session, project, name, body), 202)


@router.get("", response_model=Page[Index])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Index]:
    """Indexes by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, service.view, lambda row: (row.name,))


@router.get("/{name}", response_model=Index)
async def get(name: str, session: ReadSession, project: Project) -> Response:
    return _answer(await service.get(session, project, name), 200)


@router.post("/{name}/items", status_code=202, response_model=Index)
async def add(
    name: str, body: IndexItems, services: Uses, session: WriteSession, project: Project, once: AnswerOnce
) -> Response:
    """Add items, or replace those whose ids are there already, without a new build. `updates` of the answer is the number of
    this change: searches see it once `applied_updates` has come so far."""
    return await _change(name, IndexUpdate(items=body.items), services, session, project, once)


@router.delete("/{name}/items/{id:path}", status_code=202, response_model=Index)
async def remove(name: str, id: str, services: Uses, session: WriteSession, project: Project, once: AnswerOnce) -> Response:
    """Remove an item; nothing if none has this id. Searches see it as they see added items."""
    return await _change(name, IndexUpdate(removed=[id]), services, session, project, once)


@router.delete("/{name}", status_code=202, response_model=Index)
async def delete(name: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Remove an index and its files; a build under way is stopped first."""
    row = await service.get(session, project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _answer(row, 202)


async def _change(
    name: str, update: IndexUpdate, services: Services, session: AsyncSession, project: str, once: Once
) -> Response:
    async def make() -> tuple[BaseModel, dict[str, str]]:
        row = await items.change(services, session, project, name, update)
        return service.view(row), {"ETag": quoted(service.etag(row))}

    return await once(session, 202, make)


def _answer(row: IndexRow, status: int) -> Response:
    return answer(service.view(row), service.etag(row), status)

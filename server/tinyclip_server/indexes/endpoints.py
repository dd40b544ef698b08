"""`/v1/indexes`: build an index of pictures, look how far it is, remove it."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from tinyclip.schemas import Index, IndexPut, Page

from tinyclip_server.conditions import IfMatch, expect_match
from tinyclip_server.indexes import repository, service
from tinyclip_server.pagination import Paging
from tinyclip_server.resources import answer
from tinyclip_server.services import Project, ReadSession, Uses, WriteSession
from tinyclip_server.tables import IndexRow

router = APIRouter(prefix="/indexes", tags=["indexes"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Index)
async def put(name: Name, body: IndexPut, services: Uses, session: WriteSession, project: Project) -> Response:
    """Build an index from shards with a Ray job; what an older build holds stays searchable until it is done."""
    await service.check(services.store, body, allow_private=services.settings.allow_private_urls)
    return _answer(await service.put(session, project, name, body), 202)


@router.get("", response_model=Page[Index])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Index]:
    """Indexes by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, service.view, lambda row: (row.name,))


@router.get("/{name}", response_model=Index)
async def get(name: str, session: ReadSession, project: Project) -> Response:
    return _answer(await service.get(session, project, name), 200)


@router.delete("/{name}", status_code=202, response_model=Index)
async def delete(name: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Remove an index and its files; a build under way is stopped first."""
    row = await service.get(session, project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _answer(row, 202)


def _answer(row: IndexRow, status: int) -> Response:
    return answer(service.view(row), service.etag(row), status)

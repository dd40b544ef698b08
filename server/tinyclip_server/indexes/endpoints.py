"""`/v1/indexes`: build, change, find and delete indexes of images and texts."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexUpdate
from tinyclip.schemas import Index, IndexItems, IndexPut, Page

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.bodies import BoundedRoute, VectorsRoute
from tinyclip_server.http.conditions import IfMatch, expect_match, quoted
from tinyclip_server.http.idempotency import Idempotent, IdempotentRequest
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import Project, ReadSession, Services, ServicesDep, WriteSession
from tinyclip_server.indexes import items, repository, service

router = APIRouter(route_class=BoundedRoute, prefix="/indexes", tags=["indexes"])
items_router = APIRouter(route_class=VectorsRoute, prefix="/indexes", tags=["indexes"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Index)
async def put(name: Name, body: IndexPut, services: ServicesDep, session: WriteSession, project: Project) -> Response:
    """Build an index from shards in a Ray job. An older build stays searchable until the new one is done."""
    await service.check(services, project, body)
    return _response(await service.put(session, project, name, body), 202)


@router.get("", response_model=Page[Index])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Index]:
    """List indexes by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, service.view, lambda row: (row.name,))


@router.get("/{name}", response_model=Index)
async def get(name: str, session: ReadSession, project: Project) -> Response:
    """Get an index."""
    return _response(await service.get(session, project, name), 200)


@items_router.post("/{name}/items", status_code=202, response_model=Index)
async def add(
    name: str, body: IndexItems, services: ServicesDep, session: WriteSession, project: Project, idempotent: Idempotent
) -> Response:
    """Add items, or replace those with the same ids, without a new build.

    `updates` of the response is the number of this update; searches see it once `applied_updates` has reached it.
    """
    return await _update(name, IndexUpdate(items=body.items), services, session, project, idempotent)


@router.delete("/{name}/items/{id:path}", status_code=202, response_model=Index)
async def remove(
    name: str, id: str, services: ServicesDep, session: WriteSession, project: Project, idempotent: Idempotent
) -> Response:
    """Remove an item; a no-op if the index has no such id. Searches see it as they see added items."""
    return await _update(name, IndexUpdate(removed=[id]), services, session, project, idempotent)


@router.delete("/{name}", status_code=202, response_model=Index)
async def delete(name: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Delete an index and its files, stopping a build that runs."""
    row = await service.get(session, project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(row, 202)


async def _update(
    name: str, update: IndexUpdate, services: Services, session: AsyncSession, project: str, idempotent: IdempotentRequest
) -> Response:
    async def make() -> tuple[BaseModel, dict[str, str]]:
        row = await items.accept_update(services, session, project, name, update)
        return service.view(row), {"ETag": quoted(service.etag(row))}

    return await idempotent.respond(session, 202, make)


def _response(row: IndexRow, status: int) -> Response:
    return resource_response(service.view(row), service.etag(row), status)

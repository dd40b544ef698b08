"""`/v1/indexes`: build, change, find and delete indexes of images and texts."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import IndexUpdate
from tinyclip.schemas import Index, IndexedItem, IndexItems, IndexPut, Page
from tinyclip.schemas.indexes import LONGEST_ID

from tinyclip_server.database.tables import IndexRow
from tinyclip_server.http.bodies import BoundedRoute, VectorsRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, IfNoneMatch, expect_match, matches, quoted
from tinyclip_server.http.idempotency import Idempotent, IdempotentRequest
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import THUMBNAIL_RESPONSES, resource_response
from tinyclip_server.http.services import CallerDep, Project, ReadSession, Services, ServicesDep, WriteSession
from tinyclip_server.indexes import items, repository, service

router = APIRouter(route_class=BoundedRoute, prefix="/indexes", tags=["indexes"])
items_router = APIRouter(route_class=VectorsRoute, prefix="/indexes", tags=["indexes"])

ItemId = Annotated[str, Path(min_length=1, max_length=LONGEST_ID)]
Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Index)
async def put(name: Name, body: IndexPut, services: ServicesDep, session: WriteSession, caller: CallerDep) -> Response:
    """Build an index from shards in a Ray job. An older build stays searchable until the new one is done."""
    await service.check(services, caller.project, body)
    return _response(await service.put(session, caller.project, name, body), caller, 202)


@router.get("", response_model=Page[Index])
async def find(session: ReadSession, caller: CallerDep, paging: Paging) -> Page[Index]:
    """List indexes by name."""
    rows = await repository.by_name(session, caller.project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, lambda row: service.view(row, caller), lambda row: (row.name,))


@router.get("/{name}", response_model=Index)
async def get(name: str, session: ReadSession, caller: CallerDep) -> Response:
    """Get an index."""
    return _response(await service.get(session, caller.project, name), caller, 200)


@router.get("/{name}/items/{id:path}/thumbnail", response_class=Response, responses=THUMBNAIL_RESPONSES)
async def thumbnail(
    name: str,
    id: ItemId,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    if_none_match: IfNoneMatch = None,
    size: Annotated[int, Query(ge=16, le=1024, description="the most pixels of a side")] = 256,
) -> Response:
    """Get a small JPEG of an item's image. 404 `no_thumbnail` has the reason why there is none."""
    row = await service.get(session, project, name)
    stamp = service.stamp(row)
    await session.close()  # the shards may be slow: no connection is held meanwhile
    etag = hashlib.sha256(f"{stamp}/{size}/{id}".encode(errors="replace")).hexdigest()[:32]
    headers = {"ETag": quoted(etag), "Cache-Control": "private, max-age=60"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    jpeg = await services.planner.item_thumbnail(project, name, stamp=stamp, id=id, size=size)
    return Response(jpeg, headers=headers, media_type="image/jpeg")


@router.get("/{name}/items/{id:path}", response_model=IndexedItem)
async def get_item(name: str, id: ItemId, services: ServicesDep, session: ReadSession, project: Project) -> IndexedItem:
    """Get an item: its metadata, and whether it has a thumbnail."""
    stamp = service.stamp(await service.get(session, project, name))
    await session.close()
    return await services.planner.index_item(project, name, stamp=stamp, id=id)


@items_router.post("/{name}/items", status_code=202, response_model=Index)
async def add(
    name: str, body: IndexItems, services: ServicesDep, session: WriteSession, caller: CallerDep, idempotent: Idempotent
) -> Response:
    """Add items, or replace those with the same ids, without a new build.

    `updates` of the response is the number of this update; searches see it once `applied_updates` has reached it.
    """
    return await _update(name, IndexUpdate(items=body.items), services, session, caller, idempotent)


@router.delete("/{name}/items/{id:path}", status_code=202, response_model=Index)
async def remove(
    name: str, id: str, services: ServicesDep, session: WriteSession, caller: CallerDep, idempotent: Idempotent
) -> Response:
    """Remove an item; a no-op if the index has no such id. Searches see it as they see added items."""
    return await _update(name, IndexUpdate(removed=[id]), services, session, caller, idempotent)


@router.delete("/{name}", status_code=202, response_model=Index)
async def delete(name: str, session: WriteSession, caller: CallerDep, if_match: IfMatch = None) -> Response:
    """Delete an index and its files, stopping a build that runs."""
    row = await service.get(session, caller.project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(row, caller, 202)


async def _update(
    name: str, update: IndexUpdate, services: Services, session: AsyncSession, caller: Caller, idempotent: IdempotentRequest
) -> Response:
    async def make() -> tuple[BaseModel, dict[str, str]]:
        row = await items.accept_update(services, session, caller.project, name, update)
        return service.view(row, caller), {"ETag": quoted(service.etag(row))}

    return await idempotent.respond(session, 202, make)


def _response(row: IndexRow, caller: Caller, status: int) -> Response:
    return resource_response(service.view(row, caller), service.etag(row), status)

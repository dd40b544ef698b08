"""`/v1/datasets`: register, find and delete data sets, and point aliases at their versions."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import AliasPut, Dataset, DatasetPut, Page

from tinyclip_server.database.tables import DatasetRow
from tinyclip_server.datasets import repository, service, versions
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, Project, ReadSession, ServicesDep, WriteSession
from tinyclip_server.problems import InvalidInput

router = APIRouter(route_class=BoundedRoute, prefix="/datasets", tags=["datasets"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Alias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Dataset)
async def put(name: Name, body: DatasetPut, services: ServicesDep, session: WriteSession, caller: CallerDep) -> Response:
    """Register a data set: a Ray job reads its shards once and commits a version with its report.

    Of a registered data set, a repeated request makes a new version if shards or settings have changed.
    """
    checked = await service.check(services, caller.project, body)
    return await _response(session, caller, await service.put(session, caller.project, name, checked), 202)


@router.get("", response_model=Page[Dataset])
async def find(session: ReadSession, caller: CallerDep, paging: Paging) -> Page[Dataset]:
    """List data sets by name."""
    rows = await repository.by_name(session, caller.project, paging.after_name(), paging.page_size + 1)
    views = await service.views(session, caller, rows)
    return paging.page(rows, lambda row: views[row.name], lambda row: (row.name,))


@router.get("/{name}", response_model=Dataset)
async def get(name: str, session: ReadSession, caller: CallerDep) -> Response:
    """Get a data set."""
    return await _response(session, caller, await service.get(session, caller.project, name), 200)


@router.delete("/{name}", status_code=202, response_model=Dataset)
async def delete(name: str, session: WriteSession, caller: CallerDep, if_match: IfMatch = None) -> Response:
    """Delete a data set, its versions and their files, stopping a registration that runs. The shards are not touched."""
    row = await service.get(session, caller.project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return await _response(session, caller, row, 202)


@router.put("/{name}/aliases/{alias}", response_model=Dataset)
async def set_alias(name: str, alias: Alias, body: AliasPut, session: WriteSession, caller: CallerDep) -> Response:
    """Point an alias at a version."""
    if alias == versions.LATEST:
        raise InvalidInput.field("/alias", alias, "latest always means the newest version; choose another alias")
    row = await service.get(session, caller.project, name, lock=True)
    await versions.resolve(session, caller.project, name, str(body.version))
    await service.set_alias(session, row, alias, body.version)
    return await _response(session, caller, row, 200)


@router.delete("/{name}/aliases/{alias}", status_code=204)
async def remove_alias(name: str, alias: Alias, session: WriteSession, project: Project) -> None:
    """Remove an alias."""
    await service.remove_alias(session, await service.get(session, project, name, lock=True), alias)


async def _response(session: AsyncSession, caller: Caller, row: DatasetRow, status: int) -> Response:
    return resource_response(await service.view(session, caller, row), service.etag(row), status)

"""`/v1/deployments`: create, update, find and delete deployments of model versions on Ray Serve."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from tinyclip.schemas import Deployment, DeploymentPut, Page, Traffic

from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository, service
from tinyclip_server.deployments import traffic as measured
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, ReadSession, Services, ServicesDep, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/deployments", tags=["deployments"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Deployment)
async def put(name: Name, body: DeploymentPut, services: ServicesDep, session: WriteSession, caller: CallerDep) -> Response:
    """Create a deployment, or update it to another version without dropping a request."""
    return _response(services, await service.put(session, caller.project, name, body), caller, 202)


@router.get("", response_model=Page[Deployment])
async def find(services: ServicesDep, session: ReadSession, caller: CallerDep, paging: Paging) -> Page[Deployment]:
    """List deployments by name."""
    rows = await repository.by_name(session, caller.project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, lambda row: service.view(services.settings, row, caller), lambda row: (row.name,))


@router.get("/{name}", response_model=Deployment)
async def get(name: str, services: ServicesDep, session: ReadSession, caller: CallerDep) -> Response:
    """Get a deployment."""
    return _response(services, await service.get(session, caller.project, name), caller, 200)


@router.delete("/{name}", status_code=202, response_model=Deployment)
async def delete(
    name: str, services: ServicesDep, session: WriteSession, caller: CallerDep, if_match: IfMatch = None
) -> Response:
    """Delete a deployment. Requests in progress are answered, then the name is free again."""
    row = await service.get(session, caller.project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(services, row, caller, 202)


@router.get("/{name}/traffic", response_model=Traffic)
async def traffic(name: str, services: ServicesDep, caller: CallerDep) -> Traffic:
    """Get counts, latencies and batch sizes since the present replicas started, and the replicas.

    They are read from the nodes at most every 2 seconds; nodes that do not answer are listed in `unreachable`.
    """
    async with services.db.read() as session:
        row = await service.get(session, caller.project, name)
    return await measured.traffic(services, row)


def _response(services: Services, row: DeploymentRow, caller: Caller, status: int) -> Response:
    return resource_response(service.view(services.settings, row, caller), service.etag(row), status)

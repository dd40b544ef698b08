"""`/v1/deployments`: create, update, find and delete deployments of model versions on Ray Serve."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from tinyclip.schemas import Deployment, DeploymentPut, Page

from tinyclip_server.database.tables import DeploymentRow
from tinyclip_server.deployments import repository, service
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import Project, ReadSession, Services, ServicesDep, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/deployments", tags=["deployments"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


@router.put("/{name}", status_code=202, response_model=Deployment)
async def put(name: Name, body: DeploymentPut, services: ServicesDep, session: WriteSession, project: Project) -> Response:
    """Create a deployment, or update it to another version without dropping a request."""
    return _response(services, await service.put(session, project, name, body), 202)


@router.get("", response_model=Page[Deployment])
async def find(services: ServicesDep, session: ReadSession, project: Project, paging: Paging) -> Page[Deployment]:
    """List deployments by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    return paging.page(rows, lambda row: service.view(services.settings, row), lambda row: (row.name,))


@router.get("/{name}", response_model=Deployment)
async def get(name: str, services: ServicesDep, session: ReadSession, project: Project) -> Response:
    """Get a deployment."""
    return _response(services, await service.get(session, project, name), 200)


@router.delete("/{name}", status_code=202, response_model=Deployment)
async def delete(
    name: str, services: ServicesDep, session: WriteSession, project: Project, if_match: IfMatch = None
) -> Response:
    """Delete a deployment. Requests in progress are answered, then the name is free again."""
    row = await service.get(session, project, name, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(services, row, 202)


def _response(services: Services, row: DeploymentRow, status: int) -> Response:
    return resource_response(service.view(services.settings, row), service.etag(row), status)

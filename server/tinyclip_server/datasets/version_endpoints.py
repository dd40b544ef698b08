"""`/v1/datasets/{name}/versions`: find and delete versions, and get their reports."""

from fastapi import APIRouter
from tinyclip.schemas import DatasetReport, DatasetVersion, Page

from tinyclip_server.datasets import repository, service, versions
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.services import Project, ReadSession, ServicesDep, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/datasets/{name}/versions", tags=["datasets"])


@router.get("", response_model=Page[DatasetVersion])
async def find(name: str, session: ReadSession, project: Project, paging: Paging) -> Page[DatasetVersion]:
    """List the versions of a data set, newest first."""
    await service.get(session, project, name)
    rows = await repository.versions_before(session, name, paging.after_number() or None, paging.page_size + 1)
    aliases = (await repository.aliases(session, [name])).get(name, {})
    return paging.page(rows, lambda row: versions.view(row, aliases), lambda row: (row.version,))


@router.get("/{version}", response_model=DatasetVersion)
async def get(name: str, version: str, session: ReadSession, project: Project) -> DatasetVersion:
    """Get a version by number, alias or `latest`."""
    row = await versions.resolve(session, project, name, version)
    return versions.view(row, (await repository.aliases(session, [name])).get(name, {}))


@router.delete("/{version}", status_code=204)
async def delete(name: str, version: str, session: WriteSession, project: Project) -> None:
    """Delete a version and its files. The shards are not touched."""
    row = await service.get(session, project, name, lock=True)
    await versions.delete(session, row, await versions.resolve(session, project, name, version))


@router.get("/{version}/report", response_model=DatasetReport)
async def report(
    name: str, version: str, services: ServicesDep, session: ReadSession, project: Project
) -> DatasetReport:
    """Get what reading the data set found: findings with counts, examples and remedies; captions, image sizes, agreement."""
    found = versions.view(await versions.resolve(session, project, name, version), {})
    await session.close()  # the store may be slow: no connection is held meanwhile
    return await versions.read_report(services.store, found)

"""`/v1/datasets/{name}/versions`: find and delete versions, and get their reports and samples."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Query, Response
from tinyclip.schemas import DatasetReport, DatasetSample, DatasetVersion, Page, SampleUse

from tinyclip_server.datasets import repository, service, versions
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.conditions import IfNoneMatch, matches, quoted
from tinyclip_server.http.pagination import Paging, page_token
from tinyclip_server.http.resources import THUMBNAIL_RESPONSES
from tinyclip_server.http.services import CallerDep, Project, ReadSession, ServicesDep, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/datasets/{name}/versions", tags=["datasets"])


@router.get("", response_model=Page[DatasetVersion])
async def find(name: str, session: ReadSession, caller: CallerDep, paging: Paging) -> Page[DatasetVersion]:
    """List the versions of a data set, newest first."""
    dataset = await service.get(session, caller.project, name)
    rows = await repository.versions_before(session, name, paging.after_number() or None, paging.page_size + 1)
    views = await versions.views(session, caller, dataset, rows)
    return paging.page(rows, lambda row: views[row.version], lambda row: (row.version,))


@router.get("/{version}", response_model=DatasetVersion)
async def get(name: str, version: str, session: ReadSession, caller: CallerDep) -> DatasetVersion:
    """Get a version by number, alias or `latest`."""
    row = await versions.resolve(session, caller.project, name, version)
    dataset = await service.get(session, caller.project, name)
    return (await versions.views(session, caller, dataset, [row]))[row.version]


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


@router.get("/{version}/samples", response_model=Page[DatasetSample])
async def samples(
    name: str,
    version: str,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    paging: Paging,
    use: Annotated[SampleUse | None, Query(description="only samples of this use")] = None,
) -> Page[DatasetSample]:
    """List the samples of a version in the order of its shards, with their captions.

    A page that would read much of the shards is shorter than `page_size`, and with `use` it may be empty.
    """
    found = versions.view(await versions.resolve(session, project, name, version), {})
    await session.close()  # the shards may be slow: no connection is held meanwhile
    items, next = await services.planner.samples(
        project, found.name, found.version, start=paging.after_number(), limit=paging.page_size, use=use
    )
    return Page(items=items, next_page_token=None if next is None else page_token(next))


@router.get("/{version}/samples/{key:path}/thumbnail", response_class=Response, responses=THUMBNAIL_RESPONSES)
async def thumbnail(
    name: str,
    version: str,
    key: str,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    if_none_match: IfNoneMatch = None,
    number: Annotated[int | None, Query(ge=0, lt=2**53, description="of the sample, as it is listed; finds it at once")] = None,
    size: Annotated[int, Query(ge=16, le=1024, description="the most pixels of a side")] = 256,
) -> Response:
    """Get a small JPEG of a sample's image."""
    found = versions.view(await versions.resolve(session, project, name, version), {})
    await session.close()
    etag = f"{found.digest[:32]}-{hashlib.sha256(f'{key}/{number}/{size}'.encode(errors='replace')).hexdigest()[:16]}"
    headers = {"ETag": quoted(etag), "Cache-Control": "private, max-age=86400"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    jpeg = await services.planner.thumbnail(project, found.name, found.version, key=key, number=number, size=size)
    return Response(jpeg, headers=headers, media_type="image/jpeg")

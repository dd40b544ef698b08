"""`/v1/datasets/{name}/versions/{version}/reinforcements`: create, find and delete reinforcements."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Page, Reinforcement, ReinforcementCost, ReinforcementPost

from tinyclip_server.database.tables import ReinforcementRow
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, expect_match, quoted
from tinyclip_server.http.idempotency import Idempotent
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, ReadSession, ServicesDep, WriteSession
from tinyclip_server.reinforcements import repository, service
from tinyclip_server.reinforcements.actions import allowed

router = APIRouter(
    route_class=BoundedRoute, prefix="/datasets/{name}/versions/{version}/reinforcements", tags=["datasets"]
)


ESTIMATE: dict[int | str, dict[str, Any]] = {200: {"model": ReinforcementCost, "description": "with dry_run"}}


@router.post("", status_code=202, response_model=Reinforcement, responses=ESTIMATE)
async def create(
    name: str, version: str, body: ReinforcementPost, services: ServicesDep, caller: CallerDep, session: WriteSession,
    idempotent: Idempotent,
) -> Response:
    """Store the embeddings of one or several teachers for K views of every image and for every caption, in a Ray job.

    An equal reinforcement that exists or is in progress is returned; one that has failed continues. With `dry_run`, nothing is
    stored, and the cost is estimated from a few samples.
    """

    project = caller.project

    async def make() -> tuple[BaseModel, dict[str, str]]:
        async with services.db.read() as reading:
            found = await service.find_version(reading, project, name, version)
        checked = await service.check(services, project, body)
        if body.dry_run:
            return await services.planner.reinforcement_cost(project, found.name, found.version, checked), {}
        row = await service.create(session, project, found, checked)
        location = f"/v1/datasets/{found.name}/versions/{found.version}/reinforcements/{row.id}"
        return await _view(session, caller, row), {"ETag": quoted(service.etag(row)), "Location": location}

    return await idempotent.respond(session, 200 if body.dry_run else 202, make)


@router.get("", response_model=Page[Reinforcement])
async def find(
    name: str, version: str, session: ReadSession, caller: CallerDep, paging: Paging
) -> Page[Reinforcement]:
    """List the reinforcements of a version, newest first."""
    found = await service.find_version(session, caller.project, name, version)
    rows = await repository.newest(session, found.name, found.version, paging.after_newest(), paging.page_size + 1)
    actions = await allowed(session, caller, rows)
    return paging.page(rows, lambda row: service.view(row, actions(row)), lambda row: (row.created_at, row.id))


@router.get("/{reinforcement}", response_model=Reinforcement)
async def get(name: str, version: str, reinforcement: str, session: ReadSession, caller: CallerDep) -> Response:
    """Get a reinforcement."""
    return await _response(session, caller, await service.get(session, caller.project, name, version, reinforcement), 200)


@router.delete("/{reinforcement}", status_code=202, response_model=Reinforcement)
async def delete(
    name: str, version: str, reinforcement: str, session: WriteSession, caller: CallerDep, if_match: IfMatch = None
) -> Response:
    """Delete a reinforcement and its files, stopping it if it runs."""
    row = await service.get(session, caller.project, name, version, reinforcement, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return await _response(session, caller, row, 202)


async def _response(session: AsyncSession, caller: Caller, row: ReinforcementRow, status: int) -> Response:
    return resource_response(await _view(session, caller, row), service.etag(row), status)


async def _view(session: AsyncSession, caller: Caller, row: ReinforcementRow) -> Reinforcement:
    return service.view(row, (await allowed(session, caller, [row]))(row))

"""`/v1/models/{name}/versions/{version}/exports`: create, find and delete exports to other formats."""

from fastapi import APIRouter, Response
from pydantic import BaseModel
from tinyclip.schemas import Export, ExportPost, Page

from tinyclip_server.database.tables import ExportRow
from tinyclip_server.exports import repository, service
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.idempotency import Idempotent
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, ReadSession, WriteSession

router = APIRouter(route_class=BoundedRoute, prefix="/models/{name}/versions/{version}/exports", tags=["models"])


@router.post("", status_code=202, response_model=Page[Export])
async def create(
    name: str, version: str, body: ExportPost, caller: CallerDep, session: WriteSession, idempotent: Idempotent
) -> Response:
    """Export a version, with one Ray job a format. Formats that exist or are in progress are not exported again.

    Exported files are listed with the version's files.
    """

    async def make() -> tuple[BaseModel, dict[str, str]]:
        rows = await service.create(session, caller.project, name, version, body)
        location = f"/v1/models/{rows[0].model_name}/versions/{rows[0].model_version}/exports"
        return Page[Export](items=[service.view(row, caller) for row in rows]), {"Location": location}

    return await idempotent.respond(session, 202, make)


@router.get("", response_model=Page[Export])
async def find(name: str, version: str, session: ReadSession, caller: CallerDep) -> Page[Export]:
    """List the exports of a version, by name."""
    model, number = await service.find_version(session, caller.project, name, version)
    return Page(items=[service.view(row, caller) for row in await repository.of_version(session, model, number)])


@router.get("/{export}", response_model=Export)
async def get(name: str, version: str, export: str, session: ReadSession, caller: CallerDep) -> Response:
    """Get an export by name, such as `onnx` or `onnx-int8`."""
    return _response(await service.get(session, caller.project, name, version, export), caller, 200)


@router.delete("/{export}", status_code=202, response_model=Export)
async def delete(
    name: str, version: str, export: str, session: WriteSession, caller: CallerDep, if_match: IfMatch = None
) -> Response:
    """Delete an export and its files, stopping it if it runs."""
    row = await service.get(session, caller.project, name, version, export, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _response(row, caller, 202)


def _response(row: ExportRow, caller: Caller, status: int) -> Response:
    return resource_response(service.view(row, caller), service.etag(row), status)

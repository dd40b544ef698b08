"""`/v1/models/{name}/versions/{version}/exports`: ask for a version in other libraries' files, see how far it is, forget it."""

from fastapi import APIRouter, Response
from pydantic import BaseModel
from tinyclip.schemas import Export, ExportPost, Page

from tinyclip_server.database.tables import ExportRow
from tinyclip_server.exports import repository, service
from tinyclip_server.http.conditions import IfMatch, expect_match
from tinyclip_server.http.idempotency import AnswerOnce
from tinyclip_server.http.resources import answer
from tinyclip_server.http.services import Project, ReadSession, WriteSession

router = APIRouter(prefix="/models/{name}/versions/{version}/exports", tags=["models"])


@router.post("", status_code=202, response_model=Page[Export])
async def create(
    name: str, version: str, body: ExportPost, project: Project, session: WriteSession, once: AnswerOnce
) -> Response:
    """Export a version, a Ray job a format; what is there or under way is not made again. Its files are the version's files."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        rows = await service.ask(session, project, name, version, body)
        where = f"/v1/models/{rows[0].model_name}/versions/{rows[0].model_version}/exports"
        return Page[Export](items=[service.view(row) for row in rows]), {"Location": where}

    return await once(session, 202, make)


@router.get("", response_model=Page[Export])
async def find(name: str, version: str, session: ReadSession, project: Project) -> Page[Export]:
    """All exports of a version, by name."""
    model, number = await service.find_version(session, project, name, version)
    return Page(items=[service.view(row) for row in await repository.of_version(session, model, number)])


@router.get("/{export}", response_model=Export)
async def get(name: str, version: str, export: str, session: ReadSession, project: Project) -> Response:
    """One export, as `onnx` or `onnx-int8`."""
    return _answer(await service.get(session, project, name, version, export), 200)


@router.delete("/{export}", status_code=202, response_model=Export)
async def delete(
    name: str, version: str, export: str, session: WriteSession, project: Project, if_match: IfMatch = None
) -> Response:
    """Stop it if it is under way, and remove its files from the version."""
    row = await service.get(session, project, name, version, export, lock=True)
    expect_match(if_match, service.etag(row))
    await service.delete(session, row)
    return _answer(row, 202)


def _answer(row: ExportRow, status: int) -> Response:
    return answer(service.view(row), service.etag(row), status)

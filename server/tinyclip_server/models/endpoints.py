"""`/v1/models`: the registry, and `/v1/compare`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from tinyclip.schemas import AliasPut, Comparison, Model, ModelFile, ModelVersion, Page

from tinyclip_server.models import repository, service
from tinyclip_server.models.files import file_response, find_file
from tinyclip_server.pagination import Paging
from tinyclip_server.problems import InvalidInput
from tinyclip_server.services import Project, ReadSession, Uses, WriteSession

router = APIRouter(prefix="/models", tags=["models"])
compare_router = APIRouter(tags=["models"])

MOST_COMPARED = 50
Alias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


@router.get("", response_model=Page[Model])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Model]:
    """Models by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    views = {row.name: await service.view(session, row) for row in rows}
    return paging.page(rows, lambda row: views[row.name], lambda row: (row.name,))


@router.get("/{name}", response_model=Model)
async def get(name: str, session: ReadSession, project: Project) -> Model:
    return await service.view(session, await service.get(session, project, name))


@router.get("/{name}/versions", response_model=Page[ModelVersion])
async def versions(name: str, session: ReadSession, project: Project, paging: Paging) -> Page[ModelVersion]:
    """A model's versions, newest first."""
    await service.get(session, project, name)
    before = paging.after_number() or None
    rows = await repository.versions_before(session, name, before, paging.page_size + 1)
    aliases = await repository.aliases(session, name)
    return paging.page(rows, lambda row: service.version_view(row, aliases), lambda row: (row.version,))


@router.get("/{name}/versions/{version}", response_model=ModelVersion)
async def get_version(name: str, version: str, session: ReadSession, project: Project) -> ModelVersion:
    """A version by number, alias or `latest`."""
    return await service.get_version(session, project, name, version)


@router.get("/{name}/versions/{version}/files", response_model=Page[ModelFile])
async def files(name: str, version: str, session: ReadSession, project: Project) -> Page[ModelFile]:
    """All files of a version."""
    return Page(items=(await service.get_version(session, project, name, version)).files)


@router.get("/{name}/versions/{version}/files/{path:path}", response_class=Response)
async def file(
    name: str, version: str, path: str, request: Request, services: Uses, session: ReadSession, project: Project
) -> Response:
    """A file's bytes; range requests are answered."""
    found = await service.get_version(session, project, name, version)
    return await file_response(request, services.store, found, find_file(found, path))


@router.put("/{name}/aliases/{alias}", response_model=Model)
async def set_alias(name: str, alias: Alias, body: AliasPut, session: WriteSession, project: Project) -> Model:
    """Point an alias at a version."""
    if alias == service.LATEST:
        raise InvalidInput.field("/alias", alias, "latest always means the newest version; choose another alias")
    await service.set_alias(session, project, name, alias, body.version)
    return await service.view(session, await service.get(session, project, name))


@router.delete("/{name}/aliases/{alias}", status_code=204)
async def remove_alias(name: str, alias: Alias, session: WriteSession, project: Project) -> None:
    await service.remove_alias(session, project, name, alias)


@compare_router.get("/compare", response_model=Comparison)
async def compare(
    session: ReadSession, project: Project, models: Annotated[str, Query(description="a@1,b@best,…")]
) -> Comparison:
    """Models side by side, each with its teacher's numbers."""
    named = [part.strip() for part in models.split(",") if part.strip()]
    if not 1 <= len(named) <= MOST_COMPARED:
        raise InvalidInput.field("/models", models, f"name 1 to {MOST_COMPARED} models, separated by commas")
    found = []
    for one in named:
        name, version = await service.resolve(session, project, one)
        found.append(service.compared(await service.get_version(session, project, name, str(version))))
    return Comparison(models=found)

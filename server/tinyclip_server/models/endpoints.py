"""`/v1/models`: the registry, and `/v1/compare`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel
from tinyclip.schemas import AliasPut, Comparison, ImportUpload, Model, ModelFile, ModelImport, ModelVersion, Page

from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.idempotency import IdempotencyKey, IdempotentRequest, fingerprint
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.services import CallerDep, Project, ReadSession, ServicesDep, WriteSession
from tinyclip_server.models import imports, repository, service
from tinyclip_server.models.files import file_response, find_file
from tinyclip_server.problems import InvalidInput, UnknownMedia

router = APIRouter(route_class=BoundedRoute, prefix="/models", tags=["models"])
compare_router = APIRouter(tags=["models"])

MAX_COMPARED = 50
IMPORT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/x-tar": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": ModelImport.model_json_schema()},
    },
}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"*/*": {}}, "description": "the whole file"},
    206: {"content": {"*/*": {}}, "description": "the requested range"},
    304: {"description": "the file still has the ETag of `If-None-Match`"},
}
Alias = Annotated[str, Path(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


@router.get("", response_model=Page[Model])
async def find(session: ReadSession, project: Project, paging: Paging) -> Page[Model]:
    """List models by name."""
    rows = await repository.by_name(session, project, paging.after_name(), paging.page_size + 1)
    views = {row.name: await service.view(session, row) for row in rows}
    return paging.page(rows, lambda row: views[row.name], lambda row: (row.name,))


@router.get("/{name}", response_model=Model)
async def get(name: str, session: ReadSession, project: Project) -> Model:
    """Get a model."""
    return await service.view(session, await service.get(session, project, name))


@router.get("/{name}/versions", response_model=Page[ModelVersion])
async def versions(name: str, session: ReadSession, caller: CallerDep, paging: Paging) -> Page[ModelVersion]:
    """List a model's versions, newest first."""
    await service.get(session, caller.project, name)
    before = paging.after_number() or None
    rows = await repository.versions_before(session, name, before, paging.page_size + 1)
    aliases, actions = await repository.aliases(session, name), service.allowed(caller)
    return paging.page(rows, lambda row: service.version_view(row, aliases, actions), lambda row: (row.version,))


@router.get("/{name}/versions/{version}", response_model=ModelVersion)
async def get_version(name: str, version: str, session: ReadSession, caller: CallerDep) -> ModelVersion:
    """Get a version by number, alias or `latest`."""
    return await service.get_version(session, caller.project, name, version, service.allowed(caller))


@router.get("/{name}/versions/{version}/files", response_model=Page[ModelFile])
async def files(name: str, version: str, session: ReadSession, project: Project) -> Page[ModelFile]:
    """List the files of a version."""
    return Page(items=(await service.get_version(session, project, name, version)).files)


@router.get("/{name}/versions/{version}/files/{path:path}", response_class=Response, responses=FILE_RESPONSES)
async def file(
    name: str, version: str, path: str, request: Request, services: ServicesDep, session: ReadSession, project: Project
) -> Response:
    """Download a file of a version, or a range of it."""
    found = await service.get_version(session, project, name, version)
    await session.close()  # the store may be slow: no connection is held meanwhile
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
    """Remove an alias."""
    await service.remove_alias(session, project, name, alias)


@router.post("/import", status_code=201, response_model=ModelVersion, openapi_extra={"requestBody": IMPORT_BODY})
async def import_model(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    options: Annotated[ImportUpload, Query()],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Import a model as a new version: an official TinyCLIP checkpoint, an open_clip state dict or a directory.

    The body is the file (`application/octet-stream`) or a tar of the directory (`application/x-tar`), with options in the
    query; or a JSON document with the same options and the `source` that the server reads.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in IMPORT_BODY["content"]:
        raise UnknownMedia(f"the media type {kind or '(none)'} is not supported; send {', '.join(IMPORT_BODY['content'])}")
    project = caller.project
    async with services.importer.admit(project), imports.workspace(services) as folder:
        if kind == "application/json":
            source = await imports.named_source(request)
        else:
            limit = services.settings.max_import_bytes
            source = await imports.uploaded_source(request, options, folder, tar=kind == "application/x-tar", limit=limit)
        idempotent = IdempotentRequest(
            services, project, idempotency_key, fingerprint(request, source.digest),
            slowest_seconds=services.settings.import_timeout_seconds,
        )

        async def make() -> tuple[BaseModel, dict[str, str]]:
            made = await imports.make_version(session, services, project, source, folder)
            version = made.model_copy(update={"actions": service.allowed(caller)})
            return version, {"Location": f"/v1/models/{version.name}/versions/{version.version}"}

        async with services.db.write() as session:
            response = await idempotent.respond(session, 201, make)
        await imports.remove_marker(services, folder.name)
    await imports.sweep(services)
    return response


@compare_router.get("/compare", response_model=Comparison)
async def compare(
    session: ReadSession,
    project: Project,
    models: Annotated[str, Query(description="a@1,b@best,…")],
    per_class: Annotated[bool, Query(description="false leaves out per_class and worst_classes, which may be long")] = True,
) -> Comparison:
    """Compare up to 50 models, each with the metrics of its teacher."""
    named = [part.strip() for part in models.split(",") if part.strip()]
    if not 1 <= len(named) <= MAX_COMPARED:
        raise InvalidInput.field("/models", models, f"name 1 to {MAX_COMPARED} models, separated by commas")
    found = []
    for one in named:
        name, version = await service.resolve(session, project, one)
        found.append(service.compared_model(await service.get_version(session, project, name, str(version)), per_class=per_class))
    return Comparison(models=found)

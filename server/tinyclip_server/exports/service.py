"""Operations on exports. Each function works in the caller's transaction and only flushes."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Export, ExportFormat, ExportOptions, ExportPost, ExportState, ModelVersion
from tinyclip.schemas.exports import EXPORTS, export_name, unavailable_formats, unavailable_option

from tinyclip_server.database.tables import ExportRow, ModelVersionRow
from tinyclip_server.exports import repository
from tinyclip_server.exports.actions import allowed, possible
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.resources import begin_ray_job, mark_deleting, new_id
from tinyclip_server.models import service as models
from tinyclip_server.problems import Conflict, InvalidInput, NotFound


async def create(session: AsyncSession, project: str, model: str, which: str, body: ExportPost) -> list[ExportRow]:
    """Queue the requested exports that do not exist or have failed, and return all requested ones in their order.

    Raises NotFound, InvalidInput, Conflict.
    """
    model, number = await models.resolve(session, project, f"{model}@{which}")
    await repository.of_version(session, model, number, lock=True)  # before the version, as in every transaction that locks both
    version = await session.get_one(ModelVersionRow, (model, number), with_for_update=True)  # one request at a time
    _expect_formats(ModelVersion.model_validate(version.document), body)
    tasks = await repository.evaluated_tasks(session, model, number)
    names = {format: export_name(format, body.options) for format in body.formats}
    known = {row.name: row for row in await repository.of_version(session, model, number)}
    for name in names.values():
        if name in known and "delete" not in possible(known[name]):
            raise Conflict(f"export {name} of {model}@{number} is being deleted; wait until it is gone", code="export_deleting")
    rows = []
    for format, name in names.items():
        row = known.get(name) or _new(session, project, model, number, format, body.options)
        if row.version == 0 or "retry" in possible(row):
            row.request, row.lost, row.error, row.finished_at = {**_request(row), "tasks": tasks}, 0, None, None
            begin_attempt(row, row.attempt + 1)
        rows.append(row)
    await session.flush()
    return rows


def begin_attempt(row: ExportRow, number: int) -> None:
    """Begin an export, or begin it again after its Ray job was lost."""
    row.attempt, row.progress = number, 0.0
    begin_ray_job(row, f"tc-export-{row.id}-a{number}", ExportState.QUEUED)


async def find_version(session: AsyncSession, project: str, model: str, which: str) -> tuple[str, int]:
    """Return the name and the number of a version. Raises NotFound."""
    return await models.resolve(session, project, f"{model}@{which}")


async def get(session: AsyncSession, project: str, model: str, which: str, name: str, *, lock: bool = False) -> ExportRow:
    """Return an export. Raises NotFound."""
    model, number = await find_version(session, project, model, which)
    row = await repository.find(session, model, number, name, lock=lock)
    if row is None:
        known = ", ".join(each.name for each in await repository.of_version(session, model, number)) or "none"
        raise NotFound(f"{model}@{number} has no export {name}; it has {known}", code="no_such_export")
    return row


async def delete(session: AsyncSession, row: ExportRow) -> None:
    """Remove an export's files from its version and mark it for deletion; its row is deleted after its Ray job and its files.

    Repeated, it is a no-op.
    """
    if "delete" not in possible(row):
        return
    mark_deleting(row)
    await list_files(session, row, [])
    await session.flush()


async def list_files(session: AsyncSession, row: ExportRow, files: list[dict[str, Any]]) -> None:
    """List these files of an export with the version's own files, in place of those listed before."""
    version = await session.get(ModelVersionRow, (row.model_name, row.model_version), with_for_update=True)
    if version is None:
        return
    folder = f"{EXPORTS}/{row.name}/"
    others = [file for file in version.document["files"] if not file["path"].startswith(folder)]
    added = [{**file, "path": folder + file["path"]} for file in files]
    version.document = {**version.document, "files": [*others, *added]}


def view(row: ExportRow, caller: Caller) -> Export:
    document = row.document or {}
    return Export.model_validate({
        "name": row.name, "model": f"{row.model_name}@{row.model_version}", "format": row.format, "int8": row.int8,
        **_options(row), "state": row.state, "progress": row.progress, "message": row.message,
        "files": document.get("files", []), "check": document.get("check"), "reduction": document.get("reduction"),
        "error": row.error, "ray_submission_id": row.ray_submission_id, "actions": allowed(caller, row),
        "created_at": row.created_at, "updated_at": row.updated_at, "finished_at": row.finished_at,
    })


def etag(row: ExportRow) -> str:
    """Return the version of the request before the dot, which `If-Match` compares, and its progress after it."""
    return f"{row.version}.{row.state}-{row.next_segment}"


def _new(
    session: AsyncSession, project: str, model: str, version: int, format: ExportFormat, options: ExportOptions
) -> ExportRow:
    row = ExportRow(
        id=new_id("export"), project=project, model_name=model, model_version=version, name=export_name(format, options),
        format=format, int8=options.int8, state=ExportState.QUEUED, version=0, attempt=0,
        request={"vocabulary": options.vocabulary, "embedding": options.embedding},
    )
    session.add(row)
    return row


def _request(row: ExportRow) -> dict[str, Any]:
    return {"name": row.model_name, "version": row.model_version, "format": row.format, "int8": row.int8, **_options(row)}


def _options(row: ExportRow) -> dict[str, Any]:
    """Return the options that have no column; requests of an older version have none."""
    return {name: row.request[name] for name in ("vocabulary", "embedding") if name in row.request}


def _expect_formats(version: ModelVersion, body: ExportPost) -> None:
    """Raise InvalidInput for the first format that is not available for the version, or not with these options."""
    reasons = unavailable_formats(version.layout)
    for index, format in enumerate(body.formats):
        if format in reasons:
            has = ", ".join(each for each in ExportFormat if each not in reasons)
            message = f"{version.name}@{version.version} has no {format} export: {reasons[format]}; it has {has}"
            raise InvalidInput.field(f"/formats/{index}", format, message, code="format_not_available")
        if (unavailable := unavailable_option(version.layout, format, body.options)) is not None:
            field, message = unavailable
            pointer, value = ("/vocabulary", body.vocabulary) if field == "vocabulary" else (f"/formats/{index}", format)
            raise InvalidInput.field(pointer, value, message, code="format_not_available")

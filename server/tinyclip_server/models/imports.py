"""Imports of a user's model file as a version of the registry.

The order makes a kill harmless. The file is read and checked before anything is written; a version number is reserved; a marker
names what may be left incomplete; the folder is written, its document last; version, alias and response are one transaction.
A folder without a version row is not a version, its number is never used again, and `sweep` removes it by its marker.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect
from tinyclip.artifacts.paths import IMPORTS, import_marker, model_version
from tinyclip.schemas import ImportOptions, ImportUpload, ModelImport, ModelVersion

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import ModelRow
from tinyclip_server.http.bodies import validated, whole_body
from tinyclip_server.http.services import Services
from tinyclip_server.models import repository, service
from tinyclip_server.problems import ApiError, Conflict, InvalidInput, StorageFull, TooLarge

logger = logging.getLogger(__name__)

WRITE_CHUNK = 1 << 20
GRACE_SECONDS = 300.0
"""Time after the timeout of an import before its remains are removed."""


@dataclass(frozen=True)
class Source:
    """A model to import, and the options of its import."""

    options: ImportOptions
    path: str
    """Where the importer finds it: the upload, or the source that the user named."""
    upload_name: str | None
    """The name of an upload; None for a source that the server reads."""
    digest: bytes
    """Identifies the body, to recognise a repeated request."""


@contextlib.asynccontextmanager
async def workspace(services: Services) -> AsyncIterator[Path]:
    """Create a local folder for the upload of one import, and remove it at the end."""
    folder = services.settings.data_dir / IMPORTS / f"{int(time.time())}-{secrets.token_hex(6)}"
    try:
        await asyncio.to_thread(folder.mkdir, parents=True)
        yield folder
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(f"the disk of {folder.parent} is full; free space for the upload", code="disk_full") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


async def named_source(request: Request) -> Source:
    """Return the source that a JSON body names, which the server reads. Raises InvalidInput."""
    body = await whole_body(request)
    options = await validated(request, body, ModelImport)
    return Source(options, options.source, None, body)


async def uploaded_source(request: Request, options: ImportUpload, folder: Path, *, tar: bool, limit: int) -> Source:
    """Write the body to `folder` in pieces and return it as a source. Raises TooLarge, InvalidInput."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    digest, size, pieces = hashlib.sha256(), 0, bytearray()
    path = folder / "upload"
    with open(path, "wb") as file:  # noqa: ASYNC230 - opening is quick, the writing is done in a thread
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                digest.update(piece)
                pieces += piece
                if len(pieces) >= WRITE_CHUNK:
                    await asyncio.to_thread(file.write, bytes(pieces))
                    pieces.clear()
        except ClientDisconnect as gone:
            raise InvalidInput("the upload is incomplete; send it again", code="upload_cut_off") from gone
        await asyncio.to_thread(file.write, bytes(pieces))
    if size == 0:
        raise InvalidInput.field("/file", options.file, "is empty; send the file as the body")
    name = f"{options.file}.tar" if tar else options.file
    return Source(options, str(path), name, digest.digest())


async def make_version(
    session: AsyncSession, services: Services, project: str, source: Source, folder: Path
) -> ModelVersion:
    """Import a model as a version; only its row is written in the session's transaction.

    Raises InvalidInput, Conflict, StorageFull.
    """
    if source.upload_name is None:
        await services.addresses.expect_readable(project, services.settings.address_rules, source.options)
    name, marker = _model_name(source), folder.name
    await _expect_available(services, project, name, source.options.alias)
    settings, pointer = services.settings, "/source" if source.upload_name is None else "/file"
    question = {
        "source": source.path, "upload_name": source.upload_name, "scratch": str(folder), "limit": settings.max_import_bytes,
        "seconds": int(settings.import_timeout_seconds) + 1, "pointer": pointer,
        "options": ImportOptions.model_validate(source.options.model_dump(include=set(ImportOptions.model_fields))).model_dump(),
    }
    async with services.importer.start(project) as process:
        await process.check(question)
        async with services.db.write() as reserving:
            number = await service.reserve(reserving, project, name)
        mark = {"name": name, "version": number, "at": now().isoformat()}
        await services.store.write_bytes(import_marker(marker), json.dumps(mark).encode())
        try:
            document = await process.write(services.store.root, name, number)
        except ApiError:
            await remove_marker(services, marker, folder=model_version(name, number))
            raise
    await service.register(session, document, name=name, version=number, job_id=None)
    if source.options.alias is not None:
        await service.set_alias(session, project, name, source.options.alias, number)
    return await service.get_version(session, project, name, str(number))


async def remove_marker(services: Services, marker: str, *, folder: str | None = None) -> None:
    """Remove an import's marker, after its incomplete folder if given. If that fails, `sweep` does it later."""
    try:
        if folder is not None:
            await services.store.remove(folder)
        await services.store.remove(import_marker(marker))
    except OSError as error:
        logger.warning("import %s: %s cannot be removed yet: %s", marker, folder or "its marker", error)


async def sweep(services: Services) -> None:
    """Remove the remains of killed imports: local uploads, and folders that did not become versions."""
    max_age = timedelta(seconds=services.settings.import_timeout_seconds + GRACE_SECONDS)
    try:
        await asyncio.to_thread(_sweep_uploads, services.settings.data_dir / IMPORTS, max_age.total_seconds())
        for name in await services.store.list(IMPORTS):
            data = await services.store.read_if_exists(import_marker(name))
            if data is not None:
                await _sweep_marked(services, name, json.loads(data), max_age)
    except (OSError, ValueError, KeyError) as error:
        logger.warning("the remains of earlier imports cannot be removed yet: %s", error)


async def _sweep_marked(services: Services, marker: str, mark: dict[str, Any], max_age: timedelta) -> None:
    if now() - datetime.fromisoformat(mark["at"]) < max_age:
        return
    async with services.db.read() as session:
        registered = await repository.version(session, mark["name"], mark["version"]) is not None
    await remove_marker(services, marker, folder=None if registered else model_version(mark["name"], mark["version"]))


def _sweep_uploads(folder: Path, max_age_seconds: float) -> None:
    if not folder.is_dir():
        return
    for upload in folder.iterdir():
        newest = max((path.stat().st_mtime for path in [upload, *upload.rglob("*")]), default=0.0)
        if time.time() - newest > max_age_seconds:
            shutil.rmtree(upload, ignore_errors=True)


async def _expect_available(services: Services, project: str, name: str, alias: str | None) -> None:
    """Refuse names that cannot be used before the long conversion. Raises Conflict, InvalidInput."""
    if alias == service.LATEST:
        raise InvalidInput.field("/alias", alias, "latest always means the newest version; choose another alias")
    async with services.db.read() as session:
        model = await session.get(ModelRow, name)
    if model is not None and model.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")


def _model_name(source: Source) -> str:
    """Return the requested name, or one derived from the preset or the file. Raises InvalidInput."""
    if source.options.name is not None:
        return source.options.name
    origin = source.options.preset or PurePosixPath(source.upload_name or source.path.rstrip("/")).name
    stem = re.sub(r"\.(tar|pt|pth|bin|ckpt|safetensors)$", "", origin.removesuffix(".tar"))
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-")[:63]
    if not name:
        raise InvalidInput.field("/name", None, f"is required: no name can be derived from {origin!r}; give one")
    return name


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the upload is larger than {limit:,} bytes; put the file where the server can read it and name it as source, or raise "
        "TINYCLIP_MAX_IMPORT_BYTES"
    )

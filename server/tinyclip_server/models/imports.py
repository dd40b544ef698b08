"""From a file that a user brings to a version of the registry.

The order is what makes a kill harmless: the file is read and checked with nothing written; a number is reserved; a marker
names what may be left half-done; the folder is written, its document last; version, alias and answer are one transaction. A
folder without that row is no version, its number is never used again, and `sweep` removes it by its marker.
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
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect
from tinyclip.artifacts.paths import IMPORTS, import_marker, model_version
from tinyclip.schemas import ImportOptions, ImportUpload, ModelImport, ModelVersion
from tinyclip.validation import field_errors

from tinyclip_server.backends.data_roots import expect_inside
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import ModelRow
from tinyclip_server.http.services import Services
from tinyclip_server.models import repository, service
from tinyclip_server.problems import ApiError, Conflict, InvalidInput, StorageFull, TooLarge

logger = logging.getLogger(__name__)

WRITE_CHUNK = 4 << 20
GRACE_SECONDS = 300.0
"""Beyond what an import may take, before what it left counts as left behind."""


@dataclass(frozen=True)
class Source:
    """What is to be imported, and what the user says of it."""

    options: ImportOptions
    path: str
    """Where the converter finds it: the upload, or what the user named."""
    called: str | None
    """An upload's name; null for what the server reads by itself."""
    digest: bytes
    """Of what was sent, to tell a repeated request by."""


@contextlib.asynccontextmanager
async def workspace(services: Services) -> AsyncIterator[Path]:
    """A folder of this machine for one import's upload, gone at the end."""
    folder = services.settings.data_dir / IMPORTS / f"{int(time.time())}-{secrets.token_hex(6)}"
    try:
        await asyncio.to_thread(folder.mkdir, parents=True)
        yield folder
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(f"no room for the upload in {folder.parent}; make some", code="disk_full") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


async def named(request: Request) -> Source:
    """A file or directory that the server reads itself, from a JSON body. Raises InvalidInput."""
    body = await request.body()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput.field("", None, f"the body is not JSON: {error}", code="malformed_json") from error
    try:
        wanted = ModelImport.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.of(field_errors(error.errors(), document, ModelImport)) from error
    return Source(wanted, wanted.source, None, body)


async def uploaded(request: Request, options: ImportUpload, folder: Path, *, tar: bool, limit: int) -> Source:
    """The body, kept in `folder` piece by piece. Raises TooLarge, InvalidInput."""
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
            raise InvalidInput("the upload ended before its end; send it again", code="upload_cut_off") from gone
        await asyncio.to_thread(file.write, bytes(pieces))
    if size == 0:
        raise InvalidInput.field("/file", options.file, "is empty; send the file as the body")
    called = f"{options.file}.tar" if tar else options.file
    return Source(options, str(path), called, digest.digest())


async def make_version(
    session: AsyncSession, services: Services, project: str, source: Source, folder: Path
) -> ModelVersion:
    """Import a model; all but its row is made outside of the session's transaction.

    Raises InvalidInput, Conflict, StorageFull.
    """
    if source.called is None:
        await expect_inside(services.settings.data_roots, [("/source", source.path)])
    name, marker = _name(source), folder.name
    await _expect_free(services, project, name, source.options.alias)
    question = {
        "source": source.path, "upload_name": source.called, "scratch": str(folder), "limit": services.settings.max_import_bytes,
        "seconds": int(services.settings.import_timeout_seconds) + 1, "pointer": "/source" if source.called is None else "/file",
        "options": ImportOptions.model_validate(source.options.model_dump(include=set(ImportOptions.model_fields))).model_dump(),
    }
    async with services.converter.conversation() as conversation:
        await conversation.check(question)
        async with services.db.write() as reserving:
            number = await service.reserve(reserving, project, name)
        mark = {"name": name, "version": number, "at": now().isoformat()}
        await services.store.write_bytes(import_marker(marker), json.dumps(mark).encode())
        try:
            document = await conversation.write(services.store.root, name, number)
        except ApiError:
            await forget(services, marker, folder=model_version(name, number))
            raise
    await service.register(session, document, name=name, version=number, job_id=None)
    if source.options.alias is not None:
        await service.set_alias(session, project, name, source.options.alias, number)
    return await service.get_version(session, project, name, str(number))


async def forget(services: Services, marker: str, *, folder: str | None = None) -> None:
    """Remove an import's marker, after the folder it left. What cannot be removed now is swept later."""
    try:
        if folder is not None:
            await services.store.remove(folder)
        await services.store.remove(import_marker(marker))
    except OSError as error:
        logger.warning("import %s: %s stays for now: %s", marker, folder or "its marker", error)


async def sweep(services: Services) -> None:
    """Remove what imports left behind that were killed: uploads on this machine, folders that became no version."""
    old = timedelta(seconds=services.settings.import_timeout_seconds + GRACE_SECONDS)
    try:
        await asyncio.to_thread(_sweep_uploads, services.settings.data_dir / IMPORTS, old.total_seconds())
        for name in await services.store.list(IMPORTS):
            data = await services.store.read_if_exists(import_marker(name))
            if data is not None:
                await _sweep_marked(services, name, json.loads(data), old)
    except (OSError, ValueError, KeyError) as error:
        logger.warning("what older imports left could not be swept: %s", error)


async def _sweep_marked(services: Services, marker: str, mark: dict[str, Any], old: timedelta) -> None:
    if now() - datetime.fromisoformat(mark["at"]) < old:
        return
    async with services.db.read() as session:
        registered = await repository.version(session, mark["name"], mark["version"]) is not None
    await forget(services, marker, folder=None if registered else model_version(mark["name"], mark["version"]))


def _sweep_uploads(folder: Path, old_seconds: float) -> None:
    if not folder.is_dir():
        return
    for left in folder.iterdir():
        newest = max((path.stat().st_mtime for path in [left, *left.rglob("*")]), default=0.0)
        if time.time() - newest > old_seconds:
            shutil.rmtree(left, ignore_errors=True)


async def _expect_free(services: Services, project: str, name: str, alias: str | None) -> None:
    """Known before a long conversion that would be for nothing. Raises Conflict, InvalidInput."""
    if alias == service.LATEST:
        raise InvalidInput.field("/alias", alias, "latest always means the newest version; choose another alias")
    async with services.db.read() as session:
        model = await session.get(ModelRow, name)
    if model is not None and model.project != project:
        raise Conflict(f"the name {name} is taken; choose another", code="name_taken")


def _name(source: Source) -> str:
    """What was asked for, else the preset's name, else the file's, as far as they can be one."""
    if source.options.name is not None:
        return source.options.name
    called = source.options.preset or PurePosixPath(source.called or source.path.rstrip("/")).name
    stem = re.sub(r"\.(tar|pt|pth|bin|ckpt|safetensors)$", "", called.removesuffix(".tar"))
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-")[:63]
    if not name:
        raise InvalidInput.field("/name", None, f"is needed: {called!r} makes no name; give one")
    return name


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"at most {limit:,} bytes are taken; put the file where the server can read it and name it as source, "
                    "or raise TINYCLIP_MAX_IMPORT_BYTES")

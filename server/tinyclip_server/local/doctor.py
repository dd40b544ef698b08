"""`tinyclip-server doctor`: looks at everything a server needs and says, for what is not well, the way out."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from tinyclip.artifacts.paths import probe_file
from tinyclip.index_database import VARIABLE as INDEX_DATABASE

from tinyclip_server.api.readiness import probe
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayGateway, RayUnavailable
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import WrongRevision, current, fit, head, refuse_unless_head
from tinyclip_server.indexes import database as index_database
from tinyclip_server.local.machine import PortTaken, listen
from tinyclip_server.settings import Settings

CHECK_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 1.0
WRITERS = 8
OTHER_STORE = (
    "events and index updates would be lost: use a store that honours If-None-Match (S3, SeaweedFS after March 2026), or a "
    "file system with hard links, and let no proxy drop the header"
)
WARN_BYTES, FAIL_BYTES = 10 << 30, 1 << 30
SERVER_PACKAGES = ("tinyclip", "fastapi", "sqlalchemy", "alembic", "ray")
ENGINE_PACKAGES = ("torch", "open_clip_torch", "webdataset", "safetensors")

Result = Literal["ok", "warn", "fail"]


class Check(BaseModel):
    """One line: what was looked at, how it is, and where it is not well what to do."""

    name: str
    result: Result
    message: str
    way_out: str = ""


async def examine(settings: Settings) -> list[Check]:
    """All checks, in the order they are shown. Changes nothing that stays."""
    checks: list[tuple[str, Awaitable[list[Check]]]] = [
        ("data folder", _data_dir(settings)),
        ("database", _database(settings)),
        ("index database", _index_database(settings)),
        ("ray", _ray(settings)),
        ("artifacts", _artifacts(settings)),
        ("versions", _versions(settings)),
        ("ports", _ports(settings)),
        ("disk", _disk(settings)),
    ]
    return [check for found in await asyncio.gather(*(_bounded(name, check) for name, check in checks)) for check in found]


async def examine_patiently(settings: Settings, seconds: float) -> list[Check]:
    """`examine`, again and again while something fails, for at most so many seconds."""
    end = time.monotonic() + seconds
    while True:
        checks = await examine(settings)
        if time.monotonic() >= end or not any(check.result == "fail" for check in checks):
            return checks
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _bounded(name: str, check: Awaitable[list[Check]]) -> list[Check]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check
    except TimeoutError:
        return [_fail(name, f"no answer within {CHECK_SECONDS:g} s", "is its address right, and does a firewall drop packets?")]


async def _data_dir(settings: Settings) -> list[Check]:
    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return [_ok("data folder", str(folder) if existing == folder else f"{folder} (will be made)")]
    way_out = "give another with --data-dir or TINYCLIP_DATA_DIR, or change its owner"
    return [_fail("data folder", f"{existing} cannot be written", way_out)]


async def _database(settings: Settings) -> list[Check]:
    url = settings.async_database_url
    name = "sqlite" if url.startswith("sqlite") else "postgresql"
    path = Path(url.partition(":///")[2])
    if name == "sqlite" and not await asyncio.to_thread(path.exists):
        return [_ok("database", f"{path} will be made by `tinyclip-server up`")]
    try:
        database = Database(url)
    except Exception as error:  # a URL of another kind, or a missing driver
        return [_fail("database", str(error), "set TINYCLIP_DATABASE_URL to sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")]
    try:
        async with database.engine.connect() as connection:
            asked = "SELECT sqlite_version()" if name == "sqlite" else "SHOW server_version"
            told = await connection.scalar(text(asked))
            return [_ok("database", f"{name} {told}"), _revision(await current(connection), embedded=name == "sqlite")]
    except (SQLAlchemyError, OSError) as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        return [_fail("database", f"cannot be reached: {why}", "start it, and look at TINYCLIP_DATABASE_URL")]
    finally:
        await database.close()


async def _index_database(settings: Settings) -> list[Check]:
    if not settings.index_database_url:
        return []
    try:
        return [_ok("index database", await index_database.version(settings.index_database_url))]
    except (index_database.DatabaseUnavailable, ValueError) as error:
        message, _, way_out = str(error).partition("; ")
        return [_fail("index database", message, way_out or f"start it, and look at {INDEX_DATABASE}")]


def _revision(found: str | None, *, embedded: bool) -> Check:
    try:
        refuse_unless_head(found)
    except WrongRevision as error:
        if embedded and fit(found) != "newer":
            return _ok("migrations", f"at {found or 'none'}; `tinyclip-server up` brings it to {head()}")
        message, _, way_out = str(error).rpartition(": ")
        return _fail("migrations", message, way_out)
    return _ok("migrations", f"at {found}, the newest")


async def _ray(settings: Settings) -> list[Check]:
    if settings.embedded:
        there = importlib.util.find_spec("ray") is not None and Path(sys.executable).with_name("ray").exists()
        if there:
            return [_ok("ray", "a local cluster is started by `tinyclip-server up`")]
        way_out = "pip install 'tinyclip[all]', or set TINYCLIP_RAY_ADDRESS"
        return [_fail("ray", "not installed, and no cluster is given", way_out)]
    gateway = RayGateway(settings.ray_address, token_path=settings.ray_token_path, timeout_s=5.0)
    try:
        there_version = await gateway.cluster_version()
    except RayUnavailable as error:
        way_out = "look at TINYCLIP_RAY_ADDRESS (the dashboard's, as http://head:8265) and TINYCLIP_RAY_TOKEN_PATH"
        return [_fail("ray", str(error), way_out)]
    finally:
        await gateway.close()
    return [_ok("ray", f"{settings.ray_address} answers"), _ray_versions(there_version), *await _asks_for_a_token(settings)]


def _ray_versions(there: str) -> Check:
    here = _version("ray")
    if here == there:
        return _ok("ray version", f"{here}, here and on the cluster")
    way_out = f"pip install 'ray=={there}' here, or 'ray=={here}' on the cluster's nodes"
    return _fail("ray version", f"{here or 'none'} here, {there} on the cluster", way_out)


async def _asks_for_a_token(settings: Settings) -> list[Check]:
    """Whoever reaches an open cluster runs code on it."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
        answer = await http.get(f"{settings.ray_address}/api/version")
    if answer.status_code in (401, 403):
        return [_ok("ray token", "the cluster asks for it")]
    way_out = "start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on every node, or keep its ports on a private network"
    return [Check(name="ray token", result="warn", message="the cluster answers anybody", way_out=way_out)]


async def _artifacts(settings: Settings) -> list[Check]:
    root = settings.artifacts_root
    try:
        store = AsyncArtifactsStore(root)
    except (ValueError, OSError) as error:
        return [_fail("artifacts", str(error), "look at TINYCLIP_ARTIFACTS")]
    complaint = await probe(store)
    if complaint is not None:
        way_out = "make the folder writable" if store.is_local else "look at the bucket, AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID"
        return [_fail("artifacts", f"{root} {complaint}", f"{way_out}, or set TINYCLIP_ARTIFACTS to another place")]
    checks = [_ok("artifacts", f"{root}: written, read, deleted"), await _conditional_writes(store)]
    if store.is_local and not settings.embedded:
        way_out = "unless every node mounts that folder, set TINYCLIP_ARTIFACTS to s3://…"
        message = "a folder, with a cluster given by address"
        checks.append(Check(name="artifacts", result="warn", message=message, way_out=way_out))
    return checks


async def _conditional_writes(store: AsyncArtifactsStore) -> Check:
    """Segments of events and generations of indexes are numbered by creating files that must not be there yet.

    A store that takes no notice of the condition answers all writers alike, and what one of them wrote is lost.
    """
    name, path = "conditional writes", probe_file(uuid.uuid4().hex)
    everybody = [f"writer {number}".encode() for number in range(WRITERS)]
    try:
        created = await asyncio.gather(*(store.create_bytes(path, data) for data in everybody), return_exceptions=True)
        again = await store.create_bytes(path, b"too late")
        kept = await store.read_if_exists(path)
    except Exception as error:  # each kind of store has errors of its own
        return _fail(name, f"{store.root} cannot be asked to create a file: {str(error) or type(error).__name__}", OTHER_STORE)
    finally:
        with contextlib.suppress(Exception):  # what could not be written need not be removed
            await store.remove(path)
    winners = [data for data, won in zip(everybody, created, strict=True) if won is True]
    if again or len(winners) != 1 or kept != winners[0]:
        message = f"{store.root} let {len(winners) + again} of {WRITERS + 1} writers create one and the same file"
        return _fail(name, message, OTHER_STORE)
    return _ok(name, f"one of {WRITERS} writers at once created a file, a later one was refused")


async def _versions(settings: Settings) -> list[Check]:
    told = [f"Python {sys.version.split()[0]}", *(f"{name} {_version(name) or '-'}" for name in SERVER_PACKAGES)]
    checks = [_ok("versions", ", ".join(told))]
    missing = [name for name in ENGINE_PACKAGES if _version(name) is None]
    if not missing:
        checks.append(_ok("engine", ", ".join(f"{name} {_version(name)}" for name in ENGINE_PACKAGES)))
    else:
        # The planner runs here in every profile; without it no spec is accepted.
        checks.append(_fail("engine", f"{', '.join(missing)} not installed", "pip install 'tinyclip[all]'"))
    return checks


async def _ports(settings: Settings) -> list[Check]:
    asked = [("API port", settings.port, "--port")]
    if settings.embedded:
        asked.append(("Serve port", settings.serve_port, "--serve-port"))
    return [await _port(settings, name, port, flag) for name, port, flag in asked]


async def _port(settings: Settings, name: str, port: int, flag: str) -> Check:
    try:
        listen(settings.host, port, flag).close()
    except PortTaken as error:
        if await _is_ours(settings):
            return _ok(name, f"{port} is in use, and a TinyCLIP answers at {settings.port}")
        return _fail(name, str(error).partition(";")[0], f"end what listens there, or choose another port with {flag}")
    except socket.gaierror:
        return _fail(name, f"{settings.host} is no address of this machine", "choose another with --host")
    return _ok(name, f"{settings.host}:{port} is free")


async def _is_ours(settings: Settings) -> bool:
    async with httpx.AsyncClient(timeout=3.0, trust_env=False) as http:
        try:
            info = (await http.get(f"http://{settings.host}:{settings.port}/openapi.json")).json()["info"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
    return bool(info.get("title") == "TinyCLIP")


async def _disk(settings: Settings) -> list[Check]:
    places = {"data folder": settings.data_dir, "temporary files": Path(tempfile.gettempdir())}
    if "://" not in settings.artifacts_root:
        places["artifacts"] = Path(settings.artifacts_root)
    return [_free(what, path) for what, path in places.items()]


def _free(what: str, path: Path) -> Check:
    existing = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    result: Result = "fail" if free < FAIL_BYTES else "warn" if free < WARN_BYTES else "ok"
    way_out = "" if result == "ok" else f"free some, or move it: {path}; a job needs room for its checkpoints"
    return Check(name=f"disk: {what}", result=result, message=f"{free / (1 << 30):.1f} GiB free", way_out=way_out)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _ok(name: str, message: str) -> Check:
    return Check(name=name, result="ok", message=message)


def _fail(name: str, message: str, way_out: str) -> Check:
    return Check(name=name, result="fail", message=message, way_out=way_out)

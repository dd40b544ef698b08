"""`tinyclip-server doctor`: check everything that a server needs, with a hint for each check that does not pass."""

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
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from tinyclip.addresses import DATA_ROOTS
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
RETRY_SECONDS = 1.0
WRITERS = 8
STORE_HINT = (
    "events and index updates would be lost: use a store that honours If-None-Match (S3, SeaweedFS after March 2026), without "
    "a proxy that drops the header, or a file system with hard links"
)
WARN_BYTES, FAIL_BYTES = 10 << 30, 1 << 30
SERVER_PACKAGES = ("tinyclip", "fastapi", "sqlalchemy", "alembic", "ray")
ENGINE_PACKAGES = ("torch", "open_clip_torch", "webdataset", "safetensors")

Result = Literal["ok", "warn", "fail"]


class Check(BaseModel):
    """The result of one check; unless it is `ok`, `hint` names what to do."""

    name: str
    result: Result
    message: str
    hint: str = Field(default="", serialization_alias="way_out")


async def examine(settings: Settings) -> list[Check]:
    """Run all checks and return their results in the order of display. Leave nothing behind."""
    checks: list[tuple[str, Awaitable[list[Check]]]] = [
        ("data folder", _data_dir(settings)),
        ("data roots", _data_roots(settings)),
        ("database", _database(settings)),
        ("index database", _index_database(settings)),
        ("ray", _ray(settings)),
        ("artifacts", _artifacts(settings)),
        ("versions", _versions(settings)),
        ("ports", _ports(settings)),
        ("disk", _disk(settings)),
    ]
    return [check for found in await asyncio.gather(*(_with_timeout(name, check) for name, check in checks)) for check in found]


async def examine_until_passed(settings: Settings, seconds: float) -> list[Check]:
    """Repeat `examine` until nothing fails, for at most `seconds`."""
    end = time.monotonic() + seconds
    while True:
        checks = await examine(settings)
        if time.monotonic() >= end or not any(check.result == "fail" for check in checks):
            return checks
        await asyncio.sleep(RETRY_SECONDS)


async def _with_timeout(name: str, check: Awaitable[list[Check]]) -> list[Check]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check
    except TimeoutError:
        return [_fail(name, f"no answer within {CHECK_SECONDS:g} s", "check its address, and whether a firewall drops packets")]


async def _data_dir(settings: Settings) -> list[Check]:
    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return [_ok("data folder", str(folder) if existing == folder else f"{folder} (will be created)")]
    hint = "choose another with --data-dir or TINYCLIP_DATA_DIR, or change its owner"
    return [_fail("data folder", f"{existing} is not a writable folder", hint)]


async def _data_roots(settings: Settings) -> list[Check]:
    if settings.roots_problem is not None:
        message, _, hint = settings.roots_problem.partition(": ")
        return [_fail("data roots", message, hint or f"correct {DATA_ROOTS}")]
    if not settings.data_roots:
        return [_ok("data roots", "none: every caller may name any address")]
    missing = [root for root in settings.data_roots if "://" not in root and not await asyncio.to_thread(Path(root).is_dir)]
    if missing:
        hint = "create or mount it, here and on every node"
        return [Check(name="data roots", result="warn", message=f"{missing[0]} is not a folder of this machine", hint=hint)]
    return [_ok("data roots", ", ".join(settings.data_roots))]


async def _database(settings: Settings) -> list[Check]:
    url = settings.async_database_url
    name = "sqlite" if url.startswith("sqlite") else "postgresql"
    path = Path(url.partition(":///")[2])
    if name == "sqlite" and not await asyncio.to_thread(path.exists):
        return [_ok("database", f"{path} will be created by `tinyclip-server up`")]
    try:
        database = Database(url)
    except Exception as error:  # a URL of another kind, or a missing driver
        return [_fail("database", str(error), "set TINYCLIP_DATABASE_URL to sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")]
    try:
        async with database.engine.connect() as connection:
            query = "SELECT sqlite_version()" if name == "sqlite" else "SHOW server_version"
            server_version = await connection.scalar(text(query))
            return [_ok("database", f"{name} {server_version}"), _revision(await current(connection), embedded=name == "sqlite")]
    except (SQLAlchemyError, OSError) as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        return [_fail("database", f"cannot be reached: {why}", "start it, and check TINYCLIP_DATABASE_URL")]
    finally:
        await database.close()


async def _index_database(settings: Settings) -> list[Check]:
    if not settings.index_database_url:
        return []
    try:
        return [_ok("index database", await index_database.version(settings.index_database_url))]
    except (index_database.DatabaseUnavailable, ValueError) as error:
        message, _, hint = str(error).partition("; ")
        return [_fail("index database", message, hint or f"start it, and check {INDEX_DATABASE}")]


def _revision(found: str | None, *, embedded: bool) -> Check:
    try:
        refuse_unless_head(found)
    except WrongRevision as error:
        if embedded and fit(found) != "newer":
            return _ok("migrations", f"at {found or 'none'}; `tinyclip-server up` upgrades it to {head()}")
        message, _, hint = str(error).rpartition(": ")
        return _fail("migrations", message, hint)
    return _ok("migrations", f"at {found}, the newest")


async def _ray(settings: Settings) -> list[Check]:
    if settings.embedded:
        if importlib.util.find_spec("ray") is not None and Path(sys.executable).with_name("ray").exists():
            return [_ok("ray", "`tinyclip-server up` starts a local cluster")]
        hint = "pip install 'tinyclip[all]', or set TINYCLIP_RAY_ADDRESS"
        return [_fail("ray", "not installed, and no cluster is configured", hint)]
    gateway = RayGateway(settings.ray_address, token_path=settings.ray_token_path, timeout_s=5.0)
    try:
        cluster_version = await gateway.cluster_version()
    except RayUnavailable as error:
        hint = "check TINYCLIP_RAY_ADDRESS (the URL of the dashboard, such as http://head:8265) and TINYCLIP_RAY_TOKEN_PATH"
        return [_fail("ray", str(error), hint)]
    finally:
        await gateway.close()
    return [_ok("ray", f"{settings.ray_address} answers"), _ray_version(cluster_version), *await _ray_token(settings)]


def _ray_version(on_cluster: str) -> Check:
    here = _version("ray")
    if here == on_cluster:
        return _ok("ray version", f"{here}, here and on the cluster")
    hint = f"pip install 'ray=={on_cluster}' here, or 'ray=={here}' on the cluster's nodes"
    return _fail("ray version", f"{here or 'none'} here, {on_cluster} on the cluster", hint)


async def _ray_token(settings: Settings) -> list[Check]:
    """Check that the cluster requires its token: without one, every client that reaches it can run code on it."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
        answer = await http.get(f"{settings.ray_address}/api/version")
    if answer.status_code in (401, 403):
        return [_ok("ray token", "the cluster requires it")]
    hint = "start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on every node, or keep its ports on a private network"
    return [Check(name="ray token", result="warn", message="the cluster accepts requests without a token", hint=hint)]


async def _artifacts(settings: Settings) -> list[Check]:
    root = settings.artifacts_root
    try:
        store = AsyncArtifactsStore(root)
    except (ValueError, OSError) as error:
        return [_fail("artifacts", str(error), "check TINYCLIP_ARTIFACTS")]
    problem = await probe(store)
    if problem is not None:
        hint = "make the folder writable" if store.is_local else "check the bucket, AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID"
        return [_fail("artifacts", f"{root} {problem}", f"{hint}, or set TINYCLIP_ARTIFACTS to another location")]
    checks = [_ok("artifacts", f"{root}: written, read, deleted"), await _conditional_writes(store)]
    if store.is_local and not settings.embedded:
        hint = "unless every node mounts that folder, set TINYCLIP_ARTIFACTS to s3://…"
        message = "a local folder, with a cluster that may have other nodes"
        checks.append(Check(name="artifacts", result="warn", message=message, hint=hint))
    return checks


async def _conditional_writes(store: AsyncArtifactsStore) -> Check:
    """Check that of several writers who create the same file only one succeeds.

    Segments of events and generations of indexes are numbered this way. A store that ignores the condition overwrites data.
    """
    name, path = "conditional writes", probe_file(uuid.uuid4().hex)
    contents = [f"writer {number}".encode() for number in range(WRITERS)]
    try:
        created = await asyncio.gather(*(store.create_bytes(path, data) for data in contents), return_exceptions=True)
        again = await store.create_bytes(path, b"too late")
        kept = await store.read_if_exists(path)
    except Exception as error:  # each kind of store raises its own errors
        return _fail(name, f"{store.root} cannot create a file conditionally: {str(error) or type(error).__name__}", STORE_HINT)
    finally:
        with contextlib.suppress(Exception):  # the file may not exist
            await store.remove(path)
    winners = [data for data, won in zip(contents, created, strict=True) if won is True]
    if again or len(winners) != 1 or kept != winners[0]:
        message = f"{store.root} let {len(winners) + again} of {WRITERS + 1} writers create the same file"
        return _fail(name, message, STORE_HINT)
    return _ok(name, f"one of {WRITERS} concurrent writers created a file, a later one was refused")


async def _versions(settings: Settings) -> list[Check]:
    versions = [f"Python {sys.version.split()[0]}", *(f"{name} {_version(name) or '-'}" for name in SERVER_PACKAGES)]
    checks = [_ok("versions", ", ".join(versions))]
    missing = [name for name in ENGINE_PACKAGES if _version(name) is None]
    if not missing:
        checks.append(_ok("engine", ", ".join(f"{name} {_version(name)}" for name in ENGINE_PACKAGES)))
    else:
        # The planner runs on this machine in every profile; without it no spec is accepted.
        checks.append(_fail("engine", f"{', '.join(missing)} not installed", "pip install 'tinyclip[all]'"))
    return checks


async def _ports(settings: Settings) -> list[Check]:
    ports = [("API port", settings.port, "--port")]
    if settings.embedded:
        ports.append(("Serve port", settings.serve_port, "--serve-port"))
    return [await _port(settings, name, port, flag) for name, port, flag in ports]


async def _port(settings: Settings, name: str, port: int, flag: str) -> Check:
    try:
        listen(settings.host, port, flag).close()
    except PortTaken as error:
        if await _is_tinyclip(settings):
            return _ok(name, f"{port} is in use by the TinyCLIP that answers at {settings.port}")
        return _fail(name, str(error).partition(";")[0], f"stop the process that uses it, or choose another port with {flag}")
    except socket.gaierror:
        return _fail(name, f"{settings.host} is not an address of this machine", "choose another with --host")
    return _ok(name, f"{settings.host}:{port} is free")


async def _is_tinyclip(settings: Settings) -> bool:
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
    return [_free_space(what, path) for what, path in places.items()]


def _free_space(what: str, path: Path) -> Check:
    existing = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    result: Result = "fail" if free < FAIL_BYTES else "warn" if free < WARN_BYTES else "ok"
    hint = "" if result == "ok" else f"free space, or move {path}: a job needs space for its checkpoints"
    return Check(name=f"disk: {what}", result=result, message=f"{free / (1 << 30):.1f} GiB free", hint=hint)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _ok(name: str, message: str) -> Check:
    return Check(name=name, result="ok", message=message)


def _fail(name: str, message: str, hint: str) -> Check:
    return Check(name=name, result="fail", message=message, hint=hint)

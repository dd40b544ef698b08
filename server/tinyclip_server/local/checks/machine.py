"""Checks of this machine: folders, versions, ports and disks."""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from tinyclip.addresses import DATA_ROOTS

from tinyclip_server.local.checks.result import Check, Result, fail, fail_with, ok, warn
from tinyclip_server.local.machine import PortTaken, listen
from tinyclip_server.settings import Settings

WARN_BYTES, FAIL_BYTES = 10 << 30, 1 << 30
SERVER_PACKAGES = ("tinyclip", "fastapi", "sqlalchemy", "alembic", "ray")
ENGINE_PACKAGES = ("torch", "open_clip_torch", "webdataset", "safetensors")


async def data_dir(settings: Settings) -> list[Check]:
    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return [ok("data folder", str(folder) if existing == folder else f"{folder} (will be created)")]
    hint = "choose another with --data-dir or TINYCLIP_DATA_DIR, or change its owner"
    return [fail("data folder", f"{existing} is not a writable folder", hint)]


async def data_roots(settings: Settings) -> list[Check]:
    if settings.roots_problem is not None:
        return [fail_with("data roots", settings.roots_problem, ": ", f"correct {DATA_ROOTS}")]
    if not settings.data_roots:
        return [ok("data roots", "none: every caller may name any address")]
    missing = [root for root in settings.data_roots if "://" not in root and not await asyncio.to_thread(Path(root).is_dir)]
    if missing:
        hint = "create or mount it, here and on every node"
        return [warn("data roots", f"{missing[0]} is not a folder of this machine", hint)]
    return [ok("data roots", ", ".join(settings.data_roots))]


async def versions(settings: Settings) -> list[Check]:
    versions = [f"Python {sys.version.split()[0]}", *(f"{name} {package_version(name) or '-'}" for name in SERVER_PACKAGES)]
    checks = [ok("versions", ", ".join(versions))]
    missing = [name for name in ENGINE_PACKAGES if package_version(name) is None]
    if not missing:
        checks.append(ok("engine", ", ".join(f"{name} {package_version(name)}" for name in ENGINE_PACKAGES)))
    else:
        # The planner runs on this machine in every profile; without it no spec is accepted.
        checks.append(fail("engine", f"{', '.join(missing)} not installed", "pip install 'tinyclip[all]'"))
    return checks


async def ports(settings: Settings) -> list[Check]:
    ports = [("API port", settings.port, "--port")]
    if settings.embedded:
        ports.append(("Serve port", settings.serve_port, "--serve-port"))
    return [await _port(settings, name, port, flag) for name, port, flag in ports]


async def disk(settings: Settings) -> list[Check]:
    places = {"data folder": settings.data_dir, "temporary files": Path(tempfile.gettempdir())}
    if "://" not in settings.artifacts_root:
        places["artifacts"] = Path(settings.artifacts_root)
    return [_free_space(what, path) for what, path in places.items()]


async def _port(settings: Settings, name: str, port: int, flag: str) -> Check:
    try:
        listen(settings.host, port, flag).close()
    except PortTaken as error:
        if await _is_tinyclip(settings):
            return ok(name, f"{port} is in use by the TinyCLIP that answers at {settings.port}")
        return fail(name, str(error).partition(";")[0], f"stop the process that uses it, or choose another port with {flag}")
    except socket.gaierror:
        return fail(name, f"{settings.host} is not an address of this machine", "choose another with --host")
    return ok(name, f"{settings.host}:{port} is free")


async def _is_tinyclip(settings: Settings) -> bool:
    async with httpx.AsyncClient(timeout=3.0, trust_env=False) as http:
        try:
            info = (await http.get(f"http://{settings.host}:{settings.port}/openapi.json")).json()["info"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False
    return bool(info.get("title") == "TinyCLIP")


def _free_space(what: str, path: Path) -> Check:
    existing = next(one for one in (path, *path.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    result: Result = "fail" if free < FAIL_BYTES else "warn" if free < WARN_BYTES else "ok"
    hint = "" if result == "ok" else f"free space, or move {path}: a job needs space for its checkpoints"
    return Check(name=f"disk: {what}", result=result, message=f"{free / (1 << 30):.1f} GiB free", hint=hint)


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

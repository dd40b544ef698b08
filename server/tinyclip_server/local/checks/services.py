"""Checks of what the server reaches: databases, Ray and the artifacts store."""

import asyncio
import contextlib
import importlib.util
import sys
import uuid
from pathlib import Path

import httpx
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from tinyclip.artifacts.paths import probe_file
from tinyclip.index_database import VARIABLE as INDEX_DATABASE

from tinyclip_server.api.readiness import probe
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayGateway, RayUnavailable
from tinyclip_server.database.engine import Database, now
from tinyclip_server.database.migrate import WrongRevision, current, fit, head, refuse_unless_head
from tinyclip_server.indexes import database as indexes
from tinyclip_server.local.checks.machine import package_version
from tinyclip_server.local.checks.result import Check, fail, fail_with, ok, warn
from tinyclip_server.orchestration.installation import foreign_store
from tinyclip_server.settings import Settings

WRITERS = 8
CLOCK_SECONDS = 5.0
"""Difference from the database's clock that leases allow for: a third of the shortest time for which one is valid."""
STORE_HINT = (
    "events and index updates would be lost: use a store that honours If-None-Match (S3, SeaweedFS after March 2026), without "
    "a proxy that drops the header, or a file system with hard links"
)


async def database(settings: Settings) -> list[Check]:
    url = settings.async_database_url
    name = "sqlite" if url.startswith("sqlite") else "postgresql"
    path = Path(url.partition(":///")[2])
    if name == "sqlite" and not await asyncio.to_thread(path.exists):
        return [ok("database", f"{path} will be created by `tinyclip-server up`")]
    try:
        database = Database(url)
    except Exception as error:  # a URL of another kind, or a missing driver
        return [fail("database", str(error), "set TINYCLIP_DATABASE_URL to sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")]
    try:
        async with database.engine.connect() as connection:
            query = "SELECT sqlite_version()" if name == "sqlite" else "SHOW server_version"
            server_version = await connection.scalar(text(query))
            revision = await current(connection)
            checks = [ok("database", f"{name} {server_version}"), _revision(revision, embedded=name == "sqlite")]
            checks += [] if name == "sqlite" else [await _clock(connection)]
        return checks + (await _binding(database, settings) if revision == head() else [])
    except (SQLAlchemyError, OSError) as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        return [fail("database", f"cannot be reached: {why}", "start it, and check TINYCLIP_DATABASE_URL")]
    finally:
        await database.close()


async def index_database(settings: Settings) -> list[Check]:
    if not settings.index_database_url:
        return []
    try:
        return [ok("index database", await indexes.version(settings.index_database_url))]
    except (indexes.DatabaseUnavailable, ValueError) as error:
        return [fail_with("index database", str(error), "; ", f"start it, and check {INDEX_DATABASE}")]


async def ray(settings: Settings) -> list[Check]:
    if settings.cluster_problem is not None:
        return [fail_with("ray", settings.cluster_problem, "; ")]
    if settings.embedded:
        if importlib.util.find_spec("ray") is not None and Path(sys.executable).with_name("ray").exists():
            return [ok("ray", "`tinyclip-server up` starts a local cluster")]
        hint = "pip install 'tinyclip[all]', or set TINYCLIP_RAY_ADDRESS"
        return [fail("ray", "not installed, and no cluster is configured", hint)]
    gateway = RayGateway(settings.ray_address, token_path=settings.ray_token_path, timeout_s=5.0)
    try:
        cluster_version = await gateway.cluster_version()
    except RayUnavailable as error:
        hint = "check TINYCLIP_RAY_ADDRESS (the URL of the dashboard, such as http://head:8265) and TINYCLIP_RAY_TOKEN_PATH"
        return [fail("ray", str(error), hint)]
    finally:
        await gateway.close()
    return [ok("ray", f"{settings.ray_address} answers"), _ray_version(cluster_version), *await _ray_token(settings)]


async def artifacts(settings: Settings) -> list[Check]:
    root = settings.artifacts_root
    try:
        store = AsyncArtifactsStore(root)
    except (ValueError, OSError) as error:
        return [fail("artifacts", str(error), "check TINYCLIP_ARTIFACTS")]
    problem = await probe(store)
    if problem is not None:
        hint = "make the folder writable" if store.is_local else "check the bucket, AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID"
        return [fail("artifacts", f"{root} {problem}", f"{hint}, or set TINYCLIP_ARTIFACTS to another location")]
    checks = [ok("artifacts", f"{root}: written, read, deleted"), await _conditional_writes(store)]
    if store.is_local and not settings.embedded:
        hint = "unless every node mounts that folder, set TINYCLIP_ARTIFACTS to s3://…"
        message = "a local folder, with a cluster that may have other nodes"
        checks.append(warn("artifacts", message, hint))
    return checks


async def _clock(connection: AsyncConnection) -> Check:
    """Compare this machine's clock with the database's, which stands for those of all servers."""
    before = now()
    at = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    ahead = ((before + (now() - before) / 2) - at).total_seconds()
    if abs(ahead) <= CLOCK_SECONDS:
        return ok("clock", f"within {CLOCK_SECONDS:g} s of the database's")
    difference = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's"
    message = f"{difference}; leases compare the clocks of all servers"
    return warn("clock", message, f"synchronize the clocks of all servers and the database (NTP) to within {CLOCK_SECONDS:g} s")


async def _binding(database: Database, settings: Settings) -> list[Check]:
    """Check that the artifacts store is the one of the database, if both answer."""
    try:
        problem = await foreign_store(database, AsyncArtifactsStore(settings.artifacts_root))
    except Exception:  # the check of the store reports it
        return []
    if problem is not None:
        return [fail_with("binding", problem, ": ")]
    return [ok("binding", "database and artifacts store belong together")]


def _revision(found: str | None, *, embedded: bool) -> Check:
    try:
        refuse_unless_head(found)
    except WrongRevision as error:
        if embedded and fit(found) != "newer":
            return ok("migrations", f"at {found or 'none'}; `tinyclip-server up` upgrades it to {head()}")
        message, _, hint = str(error).rpartition(": ")
        return fail("migrations", message, hint)
    return ok("migrations", f"at {found}, the newest")


def _ray_version(on_cluster: str) -> Check:
    here = package_version("ray")
    if here == on_cluster:
        return ok("ray version", f"{here}, here and on the cluster")
    hint = f"pip install 'ray=={on_cluster}' here, or 'ray=={here}' on the cluster's nodes"
    return fail("ray version", f"{here or 'none'} here, {on_cluster} on the cluster", hint)


async def _ray_token(settings: Settings) -> list[Check]:
    """Check that the cluster requires its token: without one, every client that reaches it can run code on it."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as http:
        answer = await http.get(f"{settings.ray_address}/api/version")
    if answer.status_code in (401, 403):
        return [ok("ray token", "the cluster requires it")]
    hint = "start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH on every node, or keep its ports on a private network"
    return [warn("ray token", "the cluster accepts requests without a token", hint)]


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
        return fail(name, f"{store.root} cannot create a file conditionally: {str(error) or type(error).__name__}", STORE_HINT)
    finally:
        with contextlib.suppress(Exception):  # the file may not exist
            await store.remove(path)
    winners = [data for data, won in zip(contents, created, strict=True) if won is True]
    if again or len(winners) != 1 or kept != winners[0]:
        message = f"{store.root} let {len(winners) + again} of {WRITERS + 1} writers create the same file"
        return fail(name, message, STORE_HINT)
    return ok(name, f"one of {WRITERS} concurrent writers created a file, a later one was refused")

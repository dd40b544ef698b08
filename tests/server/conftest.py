"""Fixtures of a whole control plane: a real database, real files, a fake planner and a scripted Ray."""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tinyclip_server.api.app import create_app
from tinyclip_server.backends.importer import Importer
from tinyclip_server.database import engine as engine_module
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.database.tables import Base
from tinyclip_server.settings import Settings

from tests.server.documents import STUDENT
from tests.server.fakes import InProcessImporter, ScriptedPlanner, ScriptedRay
from tests.server.service import FAKE_IMPORTER, FAKE_PLANNER, Service, Start

POSTGRES = "TINYCLIP_TEST_POSTGRES_URL"
MEMORY = Path("/dev/shm")
ROOM = 1 << 30
"""Bytes that must be free in memory; elsewhere a container may have 64 MiB."""
CLEAR = "; ".join(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables) if table.name != "installation")
CLEAR += "; UPDATE installation SET artifacts = NULL, owners = '[]'"
RESTART = "SELECT format('ALTER SEQUENCE %I RESTART', sequencename) FROM pg_sequences WHERE last_value IS NOT NULL"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is one: a file that is flushed to a disk takes longer than a request."""
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(prefix="tinyclip-", dir=MEMORY if roomy else None, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database at the newest revision, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "tinyclip.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL, CI's or the wheel's, without the name of a database."""
    url: str = os.environ.get(POSTGRES) or request.getfixturevalue("postgres")
    return url.rpartition("/")[0]


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> Iterator[str]:
    """The URL of a database on PostgreSQL at the newest revision; tests use it one after another."""
    with postgres_database(postgres_server) as url:
        asyncio.run(_migrate(url.replace("postgresql://", "postgresql+asyncpg://")))
        yield url


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """The kind of database: SQLite unless a test asks for `postgresql`."""
    return getattr(request, "param", "sqlite")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[str]:
    """A database without rows at the newest revision."""
    if dialect == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "tinyclip.db")
        yield f"sqlite:///{tmp_path / 'tinyclip.db'}"
        return
    url = request.getfixturevalue("migrated_postgres")
    yield url
    with psycopg.connect(url, autocommit=True, options="-c lock_timeout=10s") as connection:
        connection.execute(CLEAR)
        for (restart,) in connection.execute(RESTART).fetchall():
            connection.execute(restart)


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, dialect: str, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with postgres_database(request.getfixturevalue("postgres_server")) as url:
        yield url


_first_engines: dict[str, AsyncEngine] = {}


async def _migrate(url: str) -> None:
    await upgrade(url)
    engine = create_async_engine(url)
    async with engine.connect():
        _first_engines[engine.dialect.name] = engine
    await engine.dispose()


def create_engine_with_compiled_statements(url: str, **options: Any) -> AsyncEngine:
    """Create an engine that shares the dialect of the first one for its kind of database, and the statements compiled for it."""
    engine = create_async_engine(url, **options)
    first = _first_engines.get(engine.dialect.name)
    if first is not None:
        engine.sync_engine.dialect = engine.sync_engine.pool._dialect = first.sync_engine.dialect
        engine.sync_engine._compiled_cache = first.sync_engine._compiled_cache
    return engine


@contextlib.contextmanager
def postgres_database(server: str, template: str = "template1") -> Iterator[str]:
    """Create a database, as a copy of one whose URL or name is given, for the duration of a `with` block."""
    name = f"tinyclip_test_{os.getpid()}_{os.urandom(4).hex()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2]} STRATEGY file_copy")
        yield f"{server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def start(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """A function that starts the application, once or several times, on the same data.

    Planner and importer run in this process, unless `planner_command` or `import_command` is given.
    """
    monkeypatch.setenv("FAKE_PLANNER_STUDENT", json.dumps(STUDENT))
    monkeypatch.setenv("FAKE_PLANNER_DIR", str(tmp_path))
    monkeypatch.setattr(engine_module, "create_async_engine", create_engine_with_compiled_statements)
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(
            ray: ScriptedRay | None = None, *, schedule: bool = False, cluster_lost: bool = False, **changes: Any
        ) -> Service:
            given = {
                "data_dir": tmp_path, "database_url": database_url, "ray_address": "http://127.0.0.1:1", "max_running_jobs": 1,
                "status_seconds": 0, "planner_command": FAKE_PLANNER, "planner_timeout_seconds": 20.0,
                "import_command": FAKE_IMPORTER, "import_timeout_seconds": 20.0,
            }
            settings = Settings.model_validate({**given, **changes})
            ray, planner = ray or ScriptedRay(), ScriptedPlanner()
            app = create_app(
                settings, ray=ray, schedule=schedule, cluster_lost=cluster_lost,
                planner=None if "planner_command" in changes else planner,
                importer=None if "import_command" in changes else Importer(InProcessImporter()),
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))
            return Service(app, http, ray, planner, settings)

        yield start_one
    _join_connections()


def _join_connections() -> None:
    """Wait for the threads of SQLite connections that failed to open or were given up meanwhile.

    aiosqlite lets those go without waiting, and one that reports its end to a closed loop raises in its thread.
    """
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()

"""A whole control plane in this process: real database, real files, a fake planner and a scripted Ray."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import create_async_engine
from tinyclip_server.api.app import create_app
from tinyclip_server.database.engine import now
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.database.tables import JobRow
from tinyclip_server.settings import Settings

from tests.server.documents import STUDENT, spec
from tests.server.fakes import ScriptedRay, Worker

FAKE_PLANNER = [sys.executable, str(Path(__file__).with_name("fake_planner.py"))]
FAKE_IMPORTER = [sys.executable, str(Path(__file__).with_name("fake_importer.py"))]
POSTGRES = "TINYCLIP_TEST_POSTGRES_URL"


class Service:
    """The running application, and the hands that turn it."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, ray: ScriptedRay, settings: Settings) -> None:
        self.app, self.http, self.ray, self.settings = app, http, ray, settings
        self.artifacts = Path(settings.artifacts_root)

    async def tick(self, times: int = 1) -> None:
        """Rounds of the scheduler."""
        for _ in range(times):
            await self.app.state.scheduler.tick()

    async def lose_leases(self) -> None:
        """What time does to the leases of a server that has gone."""
        async with self.app.state.services.db.write() as session:
            await session.execute(update(JobRow).values(lease_until=now() - timedelta(seconds=1)))

    async def submit(self, **changes: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/jobs", json=spec(**changes))
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def started(self, **changes: Any) -> Worker:
        """A job that was submitted to Ray, and its worker that has written nothing yet."""
        job = await self.submit(**changes)
        await self.tick()
        job = await self.job(job["id"])
        assert job["state"] == "starting"
        return Worker(self.artifacts, job)

    async def running(self, **changes: Any) -> Worker:
        worker = await self.started(**changes)
        worker.start()
        await self.tick()
        return worker

    async def made(self, name: str) -> dict[str, Any]:
        """A job that has succeeded."""
        worker = await self.running(name=name)
        worker.succeed()
        await self.tick()
        job = await self.job(worker.job)
        assert job["state"] == "succeeded"
        return job

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        return (await self.http.get(f"/v1/jobs/{job_id}/events", params={"page_size": 500})).json()["items"]


on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

Start = Callable[..., Awaitable[Service]]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database at the newest revision, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "tinyclip.db"
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture
async def database_url(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> AsyncIterator[str]:
    """A fresh database: SQLite, or one on PostgreSQL (the CI's, else the wheel's) for tests that ask for `postgresql`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copy(migrated, tmp_path / "tinyclip.db")
        yield f"sqlite:///{tmp_path / 'tinyclip.db'}"
        return
    url = os.environ.get(POSTGRES) or request.getfixturevalue("postgres")
    name = f"tinyclip_test_{os.getpid()}_{abs(hash(request.node.nodeid)) % 10**9}"
    server = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    yield f"{url.rsplit('/', 1)[0]}/{name}"
    async with server.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await server.dispose()


@pytest.fixture
async def start(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts the application, as often as a test wants, on the same data."""
    monkeypatch.setenv("FAKE_PLANNER_STUDENT", json.dumps(STUDENT))
    monkeypatch.setenv("FAKE_PLANNER_DIR", str(tmp_path))
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(ray: ScriptedRay | None = None, *, schedule: bool = False, **changes: Any) -> Service:
            given = {
                "data_dir": tmp_path, "database_url": database_url, "ray_address": "http://127.0.0.1:1", "max_running_jobs": 1,
                "status_seconds": 0, "planner_command": FAKE_PLANNER, "planner_timeout_seconds": 20.0,
                "import_command": FAKE_IMPORTER, "import_timeout_seconds": 20.0,
            }
            settings = Settings.model_validate({**given, **changes})
            await upgrade(settings.async_database_url)
            ray = ray or ScriptedRay()
            app = create_app(settings, ray=ray, schedule=schedule)
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))
            return Service(app, http, ray, settings)

        yield start_one
    await _connections_stopped()


async def _connections_stopped() -> None:
    """Wait for the threads of SQLite connections that failed to open or were given up meanwhile.

    aiosqlite lets those go without waiting, and one that reports its end to a closed loop raises in its thread.
    """

    async def stopped() -> bool:
        return not any("_connection_worker_thread" in thread.name for thread in threading.enumerate())

    await eventually(stopped)


@pytest.fixture
async def service(start: Start) -> Service:
    return await start()


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it holds in the database, which calls nobody
            await asyncio.sleep(0.02)

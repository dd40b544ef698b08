"""A whole control plane in this process, and the calls by which tests drive it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow
from tinyclip_server.settings import Settings

from tests.server.documents import spec
from tests.server.fakes import ScriptedPlanner, ScriptedRay, Worker

FAKE_PLANNER = [sys.executable, str(Path(__file__).with_name("fake_planner.py"))]
FAKE_IMPORTER = [sys.executable, str(Path(__file__).with_name("fake_importer.py"))]

on_both_databases = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)


class Service:
    """The running application, a client of it, and the fakes behind it."""

    def __init__(
        self, app: FastAPI, http: httpx.AsyncClient, ray: ScriptedRay, planner: ScriptedPlanner, settings: Settings
    ) -> None:
        self.app, self.http, self.ray, self.planner, self.settings = app, http, ray, planner, settings
        self.artifacts = Path(settings.artifacts_root)

    async def tick(self, times: int = 1) -> None:
        """Run rounds of the scheduler."""
        for _ in range(times):
            await self.app.state.scheduler.tick()

    async def lose_leases(self) -> None:
        """Let every lease expire, as those of a server that was killed do."""
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
        """Submit a job to Ray and return its worker, which has written nothing yet."""
        job = await self.submit(**changes)
        await self.tick()
        job = await self.job(job["id"])
        assert job["state"] == "starting"
        return Worker(self.artifacts, job)

    async def running(self, **changes: Any) -> Worker:
        """Submit a job and return its worker, which has begun the first stage."""
        worker = await self.started(**changes)
        worker.start()
        await self.tick()
        return worker

    async def made(self, name: str) -> dict[str, Any]:
        """Submit a job that succeeds, and return it."""
        worker = await self.running(name=name)
        worker.succeed()
        await self.tick()
        job = await self.job(worker.job)
        assert job["state"] == "succeeded"
        return job

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        return (await self.http.get(f"/v1/jobs/{job_id}/events", params={"page_size": 500})).json()["items"]


Start = Callable[..., Awaitable[Service]]


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it holds in the database, which notifies nobody
            await asyncio.sleep(0.005)

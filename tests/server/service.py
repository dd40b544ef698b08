"""A whole control plane in this process, and the calls by which tests drive it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from tinyclip.artifacts.paths import (
    dataset_events,
    dataset_folder,
    dataset_version,
    evaluation_events,
    evaluation_folder,
    export_events,
    export_folder,
    index_folder,
    index_job_events,
    reinforcement_events,
)
from tinyclip_server.api.app import RECONCILERS
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.callers import DEFAULT_PROJECT
from tinyclip_server.models import service as models
from tinyclip_server.settings import Settings

from tests.server.documents import model_document, spec
from tests.server.events import Worker, write_segment
from tests.server.fakes import ScriptedPlanner, ScriptedRay

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

    async def call(
        self, method: str, path: str, body: Any = None, *, status: int = 200, key: str | None = None
    ) -> dict[str, Any]:
        """Send a request, expect a status, and return the document of the response."""
        response = await self.http.request(method, path, json=body, headers={"Idempotency-Key": key} if key else {})
        assert response.status_code == status, response.text
        return response.json()

    async def get(self, path: str) -> dict[str, Any]:
        return await self.call("GET", path)

    async def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Return the first page of a list."""
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()["items"]

    async def submit(self, **changes: Any) -> dict[str, Any]:
        return await self.call("POST", "/v1/jobs", spec(**changes), status=201)

    async def job(self, job_id: str) -> dict[str, Any]:
        return await self.get(f"/v1/jobs/{job_id}")

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

    async def succeeded(self, name: str) -> dict[str, Any]:
        """Submit a job that succeeds, and return it."""
        worker = await self.running(name=name)
        worker.succeed()
        await self.tick()
        job = await self.job(worker.job)
        assert job["state"] == "succeeded"
        return job

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        return await self.items(f"/v1/jobs/{job_id}/events", page_size=500)

    async def register_model(self, name: str, **changes: Any) -> int:
        """Register the next version of a model, without a job, and return its number."""
        async with self.app.state.services.db.write() as session:
            number = await models.reserve(session, DEFAULT_PROJECT, name)
            document = model_document(name, number, **changes)
            await models.register(session, document, name=name, version=number, job_id=None)
        return number

    async def reconcile(self, resource: str, times: int = 1) -> None:
        """Run rounds of a resource's reconciler."""
        for _ in range(times):
            await RECONCILERS[resource](self.app.state.services)

    def emit(self, *events: dict[str, Any], submission: str | None = None) -> None:
        """Write the next segment of a Ray job of a data set, an evaluation, an export or an index, by default the newest."""
        _, folder, attempt = _ray_job(self.artifacts, submission or self.ray.submissions[-1])
        write_segment(self.artifacts / folder, *events, attempt=attempt)

    def ray_request(self, submission: str | None = None) -> dict[str, Any]:
        """Read the request of such a job."""
        folder, _, _ = _ray_job(self.artifacts, submission or self.ray.submissions[-1])
        return json.loads((self.artifacts / folder / "request.json").read_text())


def _ray_job(artifacts: Path, submission: str) -> tuple[str, str, int]:
    """Return the folder of a Ray job's resource, that of its events, and its attempt."""
    kind, _, rest = submission.removeprefix("tc-").partition("-")
    if kind == "index":
        name, _, job = rest.partition("-b")
        return index_folder(name), index_job_events(name, f"b{job}"), 1
    id, _, attempt = rest.rpartition("-a")
    if kind == "reinforcement":  # its folder is in that of the data set's version, which the id does not name
        [folder] = artifacts.glob(f"{dataset_version('*', 1).rpartition('/')[0]}/*/reinforcements/{id}")
        place = str(folder.relative_to(artifacts))
        return place, reinforcement_events(place, int(attempt)), int(attempt)
    if kind == "dataset":
        name, _, version = id.rpartition("-v")
        return dataset_folder(name), dataset_events(name, int(version), int(attempt)), int(attempt)
    if kind == "export":
        return export_folder(id), export_events(id, int(attempt)), int(attempt)
    assert kind == "evaluation"
    return evaluation_folder(id), evaluation_events(id, int(attempt)), int(attempt)


Start = Callable[..., Awaitable[Service]]


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it holds in the database, which notifies nobody
            await asyncio.sleep(0.005)

"""A planner and a Ray cluster that the test controls."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tinyclip_server.backends.helper_process import HelperProcess
from tinyclip_server.backends.planner import ADMITTED, Planner
from tinyclip_server.backends.ray_gateway import EndedJob, LiveJob, RayJobNote, RayJobStatus, RayRefused, RayUnavailable
from tinyclip_server.http.callers import DEFAULT_PROJECT

from tests.server import fake_importer, fake_planner


class ScriptedRay:
    """A Ray cluster that records its calls. Jobs are PENDING until the test changes them."""

    def __init__(self) -> None:
        self.jobs: dict[str, RayJobStatus] = {}
        self.entrypoints: dict[str, str] = {}
        self.ended_at: dict[str, datetime] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.submissions: list[str] = []
        self.stopped: list[str] = []
        self.notes: dict[str, RayJobNote] = {}
        self.unavailable = False
        self.refusal_reason: str | None = None
        self.submission_error: str | None = None
        """The answer to submissions that Ray does not take, although it answers everything else."""
        self.serve_bodies: list[dict[str, Any]] = []
        self.node_summary: dict[str, Any] = {"summary": [], "nodeLogicalResources": {}}
        self.running_elsewhere: list[LiveJob] = []
        """Live jobs of others, besides those that were submitted here."""
        self.actors: dict[str, set[str]] = {}
        self.exposed: dict[str, str] = {}
        """Metrics by the address of a node; others do not answer."""
        self.scrapes = 0
        self.serve: dict[str, Any] = {"applications": {}}
        self.proxy_routes = True
        self.health: dict[str, Any] = {"status": "ok"}

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        self._expect_available()
        if self.refusal_reason:
            raise RayRefused(self.refusal_reason)
        if self.submission_error:
            raise RayUnavailable(f"POST /api/jobs/: {self.submission_error}", self.submission_error)
        self.submissions.append(submission_id)
        self.jobs.setdefault(submission_id, RayJobStatus.PENDING)
        self.entrypoints[submission_id] = entrypoint
        self.metadata[submission_id] = metadata

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        self._expect_available()
        return self.jobs.get(submission_id)

    async def job_note(self, submission_id: str) -> RayJobNote | None:
        self._expect_available()
        return self.notes.get(submission_id)

    async def stop_job(self, submission_id: str) -> None:
        self._expect_available()
        self.stopped.append(submission_id)

    async def delete_job(self, submission_id: str) -> None:
        self._expect_available()
        if not self.jobs.get(submission_id, RayJobStatus.SUCCEEDED).ended:
            raise RayUnavailable("the job is still running")
        self.jobs.pop(submission_id, None)
        self.notes.pop(submission_id, None)

    async def ended_jobs(self) -> list[EndedJob]:
        self._expect_available()
        return [
            EndedJob(id, self.entrypoints[id], self.ended_at.get(id, datetime.now(UTC)))
            for id, status in self.jobs.items()
            if status.ended
        ]

    async def live_jobs(self) -> list[LiveJob]:
        self._expect_available()
        own = [
            LiveJob(id, self.entrypoints[id], status, ray_id=f"{number:02}000000", driver_node="head")
            for number, (id, status) in enumerate(self.jobs.items())
            if not status.ended
        ]
        return own + self.running_elsewhere

    async def nodes(self) -> dict[str, Any]:
        self._expect_available()
        return self.node_summary

    async def actor_nodes(self) -> dict[str, set[str]]:
        self._expect_available()
        return self.actors

    async def node_metrics(self, address: str, prefix: bytes) -> str:
        self._expect_available()
        self.scrapes += 1
        if address not in self.exposed:
            raise RayUnavailable("connection refused")
        lines = self.exposed[address].splitlines(keepends=True)
        return "".join(line for line in lines if line.startswith(prefix.decode()))

    async def cluster_version(self) -> str:
        self._expect_available()
        return "2.60.0"

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        self._expect_available()
        self.serve_bodies.append(body)

    async def serve_status(self) -> dict[str, Any]:
        self._expect_available()
        return self.serve

    async def deployment_health(self, endpoint: str) -> dict[str, Any] | None:
        self._expect_available()
        return self.health if self.proxy_routes else None

    async def ready(self) -> bool:
        return not self.unavailable

    async def close(self) -> None:
        return None

    def _expect_available(self) -> None:
        if self.unavailable:
            raise RayUnavailable("connection refused")


class ScriptedPlanner(Planner):
    """A planner in this process: `fake_planner.py` without a start of Python."""

    def __init__(self) -> None:
        super().__init__([HelperProcess([], timeout_s=30)])
        self.held: asyncio.Event | None = None
        """Answers wait for this event if it is set."""

    async def warm_up(self) -> None:
        return None

    async def is_full(self) -> bool:
        """Return whether a further request of the default project is refused."""
        project = self._turns._projects.get(DEFAULT_PROJECT)
        return project is not None and project.admitted == ADMITTED

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if self.held is not None:
            await self.held.wait()
        return fake_planner.answer({"id": "", **question})


class InProcessImporter(HelperProcess):
    """A helper process of imports in this process: `fake_importer.py` without a start of Python."""

    def __init__(self) -> None:
        super().__init__([], timeout_s=20)
        self._question: dict[str, Any] | None = None

    async def start(self) -> None:
        self._question = None

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if self._question is None:
            self._question = dict(question)
            return fake_importer.check(self._question)
        return fake_importer.write(dict(question), self._question)


class ScriptedServe(ScriptedRay):
    """A Ray cluster whose Serve applications are RUNNING at once, unless the test overrides their status."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[str, dict[str, Any]] = {}
        self.refusal: Exception | None = None

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        await super().put_serve_applications(body)
        if self.refusal:
            raise self.refusal
        running = {app["name"]: {"status": "RUNNING", "deployed_app_config": app} for app in body["applications"]}
        self.serve = {"applications": running}

    async def serve_status(self) -> dict[str, Any]:
        status = await super().serve_status()
        applications = {name: {**app, **self.statuses.get(name, {})} for name, app in status["applications"].items()}
        return {**status, "applications": applications}

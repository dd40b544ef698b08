"""A Ray that does what the test says, and a worker whose story the test tells."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tinyclip_server.backends.helper_process import HelperProcess
from tinyclip_server.backends.planner import Planner
from tinyclip_server.backends.ray_gateway import EndedJob, RayJobStatus, RayRefused, RayUnavailable

from tests.server import fake_planner
from tests.server.documents import STEPS, STUDENT, model_document


class ScriptedRay:
    """Remembers what it was asked; jobs are PENDING until the test says otherwise."""

    def __init__(self) -> None:
        self.jobs: dict[str, RayJobStatus] = {}
        self.entrypoints: dict[str, str] = {}
        self.ended_at: dict[str, datetime] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.submissions: list[str] = []
        self.stopped: list[str] = []
        self.away = False
        self.refuses: str | None = None
        self.serve_bodies: list[dict[str, Any]] = []
        self.serve: dict[str, Any] = {"applications": {}}
        self.proxy_knows = True
        self.health: dict[str, Any] = {"status": "ok"}

    async def submit_job(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        self._answer()
        if self.refuses:
            raise RayRefused(self.refuses)
        self.submissions.append(submission_id)
        self.jobs.setdefault(submission_id, RayJobStatus.PENDING)
        self.entrypoints[submission_id] = entrypoint
        self.metadata[submission_id] = metadata

    async def job_status(self, submission_id: str) -> RayJobStatus | None:
        self._answer()
        return self.jobs.get(submission_id)

    async def stop_job(self, submission_id: str) -> None:
        self._answer()
        self.stopped.append(submission_id)

    async def delete_job(self, submission_id: str) -> None:
        self._answer()
        if not self.jobs.get(submission_id, RayJobStatus.SUCCEEDED).ended:
            raise RayUnavailable("still running, so Ray refuses")
        self.jobs.pop(submission_id, None)

    async def ended_jobs(self) -> list[EndedJob]:
        self._answer()
        return [
            EndedJob(id, self.entrypoints[id], self.ended_at.get(id, datetime.now(UTC)))
            for id, status in self.jobs.items()
            if status.ended
        ]

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        self._answer()
        self.serve_bodies.append(body)

    async def serve_status(self) -> dict[str, Any]:
        self._answer()
        return self.serve

    async def deployment_health(self, endpoint: str) -> dict[str, Any] | None:
        self._answer()
        return self.health if self.proxy_knows else None

    async def ready(self) -> bool:
        return not self.away

    async def close(self) -> None:
        return None

    def _answer(self) -> None:
        if self.away:
            raise RayUnavailable("connection refused")


class ScriptedPlanner(Planner):
    """Plans in this process as `fake_planner.py` does in one of its own."""

    def __init__(self) -> None:
        super().__init__(HelperProcess([], timeout_s=0))
        self.held: asyncio.Event | None = None
        """Answers wait for it where it is set."""

    async def warm_up(self) -> None:
        return None

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if self.held is not None:
            await self.held.wait()
        return fake_planner.answer({"id": "", **question})


class ScriptedServe(ScriptedRay):
    """Does what it is told at once: every application is RUNNING unless the test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.says: dict[str, dict[str, Any]] = {}
        self.refusal: Exception | None = None

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        await super().put_serve_applications(body)
        if self.refusal:
            raise self.refusal
        running = {app["name"]: {"status": "RUNNING", "deployed_app_config": app} for app in body["applications"]}
        self.serve = {"applications": running}

    async def serve_status(self) -> dict[str, Any]:
        status = await super().serve_status()
        applications = {name: {**app, **self.says.get(name, {})} for name, app in status["applications"].items()}
        return {"applications": applications}


class Worker:
    """Writes an attempt's event segments as the engine does."""

    def __init__(self, artifacts: Path, job: dict[str, Any]) -> None:
        self.job, self.attempt = job["id"], job["attempt"]
        self.artifacts = artifacts
        self.folder = artifacts / "jobs" / self.job / "attempts" / str(self.attempt) / "events"

    def tell(self, *events: dict[str, Any]) -> None:
        """Write one segment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.iterdir())) + 1
        stamp = {"time": datetime.now(UTC).isoformat(), "attempt": self.attempt}
        (self.folder / f"{number:08d}.jsonl").write_text("".join(json.dumps({**stamp, **event}) + "\n" for event in events))

    def start(self, stage: int = 0) -> None:
        self.tell({"type": "attempt.started"})
        data = {"name": "s", "inherit": "manual", "steps": STEPS, "student": STUDENT}
        self.tell({"type": "stage.started", "stage": stage, "data": data})

    def step(self, step: int, stage: int = 0, **metrics: float) -> None:
        self.tell(progress(step, stage, **metrics))

    def succeed(self) -> None:
        spec = self.spec()
        document = model_document(spec["model_name"], spec["model_version"])
        self.tell({"type": "stage.finished", "stage": 1}, {"type": "model.exported", "data": document})
        self.tell({"type": "attempt.succeeded"})

    def spec(self) -> dict[str, Any]:
        return json.loads((self.artifacts / "jobs" / self.job / "spec.json").read_text())

    def control(self) -> dict[str, Any]:
        return json.loads((self.artifacts / "jobs" / self.job / "control.json").read_text())


def progress(step: int, stage: int = 0, **metrics: float) -> dict[str, Any]:
    data = {
        "step": step, "steps": STEPS, "samples_seen": step * 10, "pairs_per_second": 5.0, "eta_seconds": float(STEPS - step),
        "metrics": metrics,
    }
    return {"type": "progress", "stage": stage, "data": data}

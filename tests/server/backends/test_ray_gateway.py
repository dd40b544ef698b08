"""Requests to Ray and the meaning of its answers, against a server that answers like Ray 2.60."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from tinyclip_server.backends.ray_gateway import (
    LiveJob,
    RayGateway,
    RayJobNote,
    RayJobStatus,
    RayRefused,
    RayUnavailable,
    works_in,
)

TOKEN = "s3cret"


LISTED: list[dict[str, Any]] = [
    {
        "submission_id": "tc-1", "job_id": "01", "status": "RUNNING", "entrypoint": "exec python --artifacts '/a b' --x",
        "driver_node_id": "head", "start_time": 1_700_000_000_000,
    },
    {"submission_id": None, "job_id": "02", "status": "RUNNING", "entrypoint": "", "driver_node_id": None},
    {"submission_id": "tc-2", "status": "SUCCEEDED", "entrypoint": "x", "end_time": 1},
]  # fmt: skip


class FakeRay:
    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.submitted: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.serve: dict[str, Any] = {}
        self.failing = False
        self.exposed, self.metrics_status = "", 200
        self.path_is_lost = False
        """True: a proxy before Ray answers 404, because it no longer knows the path to Ray."""

    async def submit(self, request: Request) -> Response:
        body = await request.json()
        self.submitted.append(body)
        if self.failing:
            return PlainTextResponse("No available agent to submit job, please try again later.", 500)
        if body["submission_id"] in self.jobs:
            return PlainTextResponse("Traceback …\nValueError: Job with submission_id already exists", 500)
        if body["entrypoint"] == "bad":
            return PlainTextResponse("Traceback …\nValueError: bad entrypoint", 400)
        self.jobs[body["submission_id"]] = {"status": "PENDING"}
        return JSONResponse({"job_id": body["submission_id"], "submission_id": body["submission_id"]})

    async def info(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["id"])
        return JSONResponse(job) if job and not self.path_is_lost else self.not_found(request)

    def not_found(self, request: Request) -> Response:
        text = "404 page not found" if self.path_is_lost else f"Job {request.path_params['id']} does not exist"
        return PlainTextResponse(text, 404)

    async def stop(self, request: Request) -> Response:
        self.stopped.append(request.path_params["id"])
        known = request.path_params["id"] in self.jobs
        return JSONResponse({"stopped": True}) if known and not self.path_is_lost else self.not_found(request)

    async def delete(self, request: Request) -> Response:
        return self.not_found(request)

    async def put_serve(self, request: Request) -> Response:
        self.serve = await request.json()
        return PlainTextResponse("")

    async def get_serve(self, request: Request) -> Response:
        return JSONResponse({"applications": self.serve.get("applications", [])})

    async def list_jobs(self, request: Request) -> Response:
        return JSONResponse(LISTED)

    async def nodes(self, request: Request) -> Response:
        assert request.query_params["view"] == "summary"
        return JSONResponse({"result": True, "msg": "", "data": {"summary": [], "nodeLogicalResources": {}}})

    async def actors(self, request: Request) -> Response:
        assert (request.query_params["filter_keys"], request.query_params["filter_values"]) == ("state", "ALIVE")
        actors = [{"job_id": "01", "node_id": "a"}, {"job_id": "01", "node_id": "b"}, {"job_id": "02", "node_id": None}]
        return JSONResponse({"data": {"result": {"total": 3, "result": actors}}})

    async def metrics(self, request: Request) -> Response:
        assert "authorization" not in request.headers
        return PlainTextResponse(self.exposed, self.metrics_status)

    async def version(self, request: Request) -> Response:
        allowed = request.headers.get("authorization") == f"Bearer {TOKEN}"
        return JSONResponse({"ray_version": "2.60.0"}) if allowed else PlainTextResponse("no", 401)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/version", self.version),
                Route("/api/jobs/", self.submit, methods=["POST"]),
                Route("/api/jobs/", self.list_jobs, methods=["GET"]),
                Route("/nodes", self.nodes),
                Route("/api/v0/actors", self.actors),
                Route("/metrics", self.metrics),
                Route("/api/jobs/{id}", self.info, methods=["GET"]),
                Route("/api/jobs/{id}", self.delete, methods=["DELETE"]),
                Route("/api/jobs/{id}/stop", self.stop, methods=["POST"]),
                Route("/api/serve/applications/", self.put_serve, methods=["PUT"]),
                Route("/api/serve/applications/", self.get_serve, methods=["GET"]),
            ]
        )


@pytest.fixture
def fake() -> FakeRay:
    return FakeRay()


@pytest.fixture
async def gateway(fake: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RayGateway]:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # would redirect Ray's own client
    (tmp_path / "token").write_text(TOKEN + "\n")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(fake.app(), lifespan="off", log_config=None))
        running = asyncio.create_task(server.serve(sockets=[bound]))
        gateway = RayGateway(f"http://127.0.0.1:{bound.getsockname()[1]}", token_path=tmp_path / "token")
        yield gateway
        await gateway.close()
        server.should_exit = True
        await running


async def test_a_job_is_submitted_with_its_name_and_environment(fake: FakeRay, gateway: RayGateway) -> None:
    await gateway.submit_job("tc-1", "exec python", {"job_name": "emoji"})

    (body,) = fake.submitted
    assert (body["submission_id"], body["entrypoint"], body["metadata"]) == ("tc-1", "exec python", {"job_name": "emoji"})
    assert body["runtime_env"]["env_vars"]["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"
    assert "entrypoint_num_cpus" not in body
    assert await gateway.job_status("tc-1") == RayJobStatus.PENDING


async def test_a_second_submission_of_the_same_id_is_a_success(fake: FakeRay, gateway: RayGateway) -> None:
    await gateway.submit_job("tc-1", "exec python", {})
    await gateway.submit_job("tc-1", "exec python", {})

    assert len(fake.submitted) == 2
    assert list(fake.jobs) == ["tc-1"]


async def test_a_500_for_an_unknown_id_is_unavailable(fake: FakeRay, gateway: RayGateway) -> None:
    fake.failing = True

    with pytest.raises(RayUnavailable, match="No available agent"):
        await gateway.submit_job("tc-1", "exec python", {})


async def test_a_refusal_has_the_last_line_of_rays_traceback(gateway: RayGateway) -> None:
    with pytest.raises(RayRefused, match=r"^ValueError: bad entrypoint$"):
        await gateway.submit_job("tc-1", "bad", {})


async def test_an_unknown_job_has_no_status_and_needs_no_stopping(fake: FakeRay, gateway: RayGateway) -> None:
    assert await gateway.job_status("tc-9") is None

    await gateway.stop_job("tc-9")
    await gateway.delete_job("tc-9")

    assert fake.stopped == ["tc-9"]


async def test_a_404_that_is_not_of_rays_jobs_is_unavailable(fake: FakeRay, gateway: RayGateway) -> None:
    await gateway.submit_job("tc-1", "exec python", {})
    fake.path_is_lost = True

    for call in (gateway.job_status, gateway.job_note, gateway.stop_job, gateway.delete_job):
        with pytest.raises(RayUnavailable, match="404 page not found"):
            await call("tc-1")


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ({"status": "PENDING", "message": "Job has not started yet."}, RayJobNote("Job has not started yet.")),
        (
            {"status": "FAILED", "message": "failed to start", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"},
            RayJobNote("failed to start", never_started=True),
        ),
        ({"status": "FAILED", "message": None, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR"}, RayJobNote("")),
    ],
    ids=["pending", "never-started", "failed"],
)
async def test_ray_explains_the_status_of_a_job(
    fake: FakeRay, gateway: RayGateway, answer: dict[str, Any], note: RayJobNote
) -> None:
    fake.jobs["tc-1"] = answer

    assert await gateway.job_note("tc-1") == note
    assert await gateway.job_note("tc-2") is None


async def test_serve_gets_all_applications_at_once(fake: FakeRay, gateway: RayGateway) -> None:
    await gateway.put_serve_applications({"applications": [{"name": "emoji"}]})

    assert await gateway.serve_status() == {"applications": [{"name": "emoji"}]}


async def test_the_token_is_sent_and_read_again_each_time(gateway: RayGateway, tmp_path: Path) -> None:
    assert await gateway.ready()

    (tmp_path / "token").write_text("another")
    assert not await gateway.ready()

    (tmp_path / "token").unlink()
    assert not await gateway.ready()


async def test_a_refused_connection_is_unavailable() -> None:
    gateway = RayGateway("http://127.0.0.1:9")

    with pytest.raises(RayUnavailable, match="/api/jobs/tc-1"):
        await gateway.job_status("tc-1")
    assert not await gateway.ready()

    await gateway.close()


class TestCluster:
    async def test_jobs_that_have_not_ended(self, gateway: RayGateway) -> None:
        submitted, connected = await gateway.live_jobs()

        at = datetime.fromtimestamp(1_700_000_000, UTC)
        assert submitted == LiveJob("tc-1", "exec python --artifacts '/a b' --x", "RUNNING", "01", "head", at)
        assert connected == LiveJob("", "", "RUNNING", "02")
        assert works_in(submitted.entrypoint, "/a b")
        assert not works_in(submitted.entrypoint, "/a")

    async def test_nodes_and_the_nodes_of_actors(self, gateway: RayGateway) -> None:
        assert await gateway.nodes() == {"summary": [], "nodeLogicalResources": {}}
        assert await gateway.actor_nodes() == {"01": {"a", "b"}}


class TestMetrics:
    async def test_only_lines_with_the_prefix_are_kept(self, fake: FakeRay, gateway: RayGateway) -> None:
        fake.exposed = "# HELP ray_x of x\n" + "ray_other 1\n" * 20_000 + "ray_x{a=\"b\"} 1\nray_xy 2\n"

        assert await gateway.node_metrics(address(gateway), b"ray_x") == 'ray_x{a="b"} 1\nray_xy 2\n'

    async def test_too_many_are_refused(
        self, fake: FakeRay, gateway: RayGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.backends.ray_gateway.MAX_METRICS_BYTES", 100)
        fake.exposed = "ray_x 1\n" * 100

        with pytest.raises(RayUnavailable, match="more than 100 bytes"):
            await gateway.node_metrics(address(gateway), b"ray_x")

    async def test_errors_are_unavailable(self, fake: FakeRay, gateway: RayGateway) -> None:
        fake.metrics_status = 500

        with pytest.raises(RayUnavailable, match="500"):
            await gateway.node_metrics(address(gateway), b"ray_x")
        with pytest.raises(RayUnavailable):
            await gateway.node_metrics("127.0.0.1:9", b"ray_x")


def address(gateway: RayGateway) -> str:
    return f"127.0.0.1:{gateway._http.base_url.port}"

"""`tinyclip-client jobs …`, as a person and as a script see it."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, PROBLEM, event, job, page, problem, student

HALF = student(2_500_000, 1_200_000, 310_000_000)
TEACHER = student(5_000_000, 2_400_000, 620_000_000)
SCORES = {
    "val": {"student": {"top1": 0.6123, "top5": 0.9}, "teacher": {"top1": 0.65, "top5": 0.92}},
    "captions": {
        "student": {"text_to_image_r1": 0.31, "text_to_image_r10": 0.7, "image_to_text_r1": 0.3},
        "teacher": {"text_to_image_r1": 0.33, "text_to_image_r10": 0.74, "image_to_text_r1": 0.35},
    },
}
SUCCEEDED = job(
    state="succeeded", attempt=1, model={"name": "shapes", "version": 1},
    stage={"state": "succeeded", "student": HALF, "evaluation": SCORES},
    progress={"step": 100, "fraction": 1.0},
)
RUNNING = {"state": "running", "attempt": 1}


def at_step(step: int) -> JSON:
    return job(
        **RUNNING,
        stage={"state": "running", "student": HALF, "metrics": {"last": {"loss": 2.0 - step / 100, "step": step}}},
        progress={"step": step, "fraction": step / 100, "pairs_per_second": 271.6, "eta_seconds": 100.0 - step},
    )


class Server:
    """Plays a job's states one after the other, each as soon as the one before was seen."""

    def __init__(self, *states: JSON, events: list[JSON] | None = None, holding: float = 0.0) -> None:
        self.states = list(states)
        self.holding = holding
        """Seconds before a long poll is answered: time for a restart to cut it off."""
        self.events = events or []
        self.asked: list[tuple[str, str, JSON | None]] = []
        self.seen = threading.Semaphore(0)

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/jobs", self.jobs, methods=["GET", "POST"]),
            Route("/v1/jobs/job_1", self.job),
            Route("/v1/jobs/job_1/events", self.events_page),
            Route("/v1/jobs/{rest:path}", self.other, methods=["GET", "POST", "DELETE"]),
        ])

    async def jobs(self, request: Request) -> Response:
        body = json.loads(await request.body()) if request.method == "POST" else None
        self.asked.append((request.method, str(request.url.query), body))
        if body is None:
            return JSONResponse(page(SUCCEEDED, job(id="job_0", state="queued"), next_page_token="more"))
        return JSONResponse(self.states[0], 201)

    async def job(self, request: Request) -> Response:
        tag = request.headers.get("if-none-match")
        place = 0 if tag is None else min(int(tag.strip('"')) + 1, len(self.states) - 1)
        self.seen.release()
        if tag is not None:
            await asyncio.sleep(self.holding)
        return JSONResponse(self.states[place], headers={"ETag": f'"{place}"'})

    async def events_page(self, request: Request) -> Response:
        return JSONResponse(page(*self.events))

    async def other(self, request: Request) -> Response:
        self.asked.append((request.method, request.url.path, json.loads(await request.body() or b"null")))
        if request.method == "DELETE":
            return Response(status_code=204)
        return JSONResponse(job(state="cancelling"), 202)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip._jobs._BETWEEN_SNAPSHOTS_SECONDS", 0.0)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "shapes.yaml"
    file.write_text("name: shapes\ndata: {train: {shards: pairs.tar}}\n")
    return file


class TestSubmit:
    def test_it_says_which_job_it_is(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        server = Server(job())
        serve(server.app())

        ran = cli("jobs", "submit", str(spec_file), "--set", "optimizer.lr=1e-4")

        assert (ran.code, ran.out, ran.err) == (0, "job_1 shapes queued\n", "")
        sent = {"name": "shapes", "data": {"train": {"shards": f"{spec_file.parent}/pairs.tar"}}, "optimizer": {"lr": 1e-4}}
        assert server.asked == [("POST", "", sent)]

    def test_json_is_the_apis_object_and_nothing_else(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        serve(Server(job(a_field_of_tomorrow=1)).app())

        ran = cli("jobs", "submit", str(spec_file), "--json")

        assert json.loads(ran.out) == job(a_field_of_tomorrow=1)
        assert ran.err == ""

    def test_a_dry_run_shows_the_plan(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        stage = {
            "index": 0, "name": "half", "inherit": "manual", "steps": 100, "samples": 6400, "student": HALF,
            "device_hours": 0.0123,
        }
        plan = {
            "spec": job()["spec"], "teacher": TEACHER, "stages": [stage], "steps": 100, "samples_per_epoch": 512, "device": "cpu",
            "device_hours": 0.0123, "warnings": ["12 of 512 captions are longer than 16 tokens"],
        }

        async def validate(request: Request) -> Response:
            assert request.query_params["validate_only"] == "true"
            return JSONResponse(plan)

        serve(Starlette(routes=[Route("/v1/jobs", validate, methods=["POST"])]))

        ran = cli("jobs", "submit", str(spec_file), "--dry-run")

        assert ran.code == 0
        assert ran.out == """\
| model   | inherit | image params | text params (without embedding) | MACs | steps | samples | device-hours |
|---------|---------|--------------|---------------------------------|------|-------|---------|--------------|
| teacher |         |           5M |                            2.4M | 620M |       |         |              |
| half    | manual  |         2.5M |                            1.2M | 310M |   100 |    6.4k |       0.0123 |
100 steps on cpu, about 0.0123 device-hours; 512 pairs an epoch
warning: 12 of 512 captions are longer than 16 tokens
"""

    def test_a_problem_is_two_lines_and_exit_code_2(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        async def refuse(request: Request) -> Response:
            return JSONResponse(PROBLEM, 422)

        serve(Starlette(routes=[Route("/v1/jobs", refuse, methods=["POST"])]))

        ran = cli("jobs", "submit", str(spec_file))

        assert ran.code == 2
        assert ran.out == ""
        assert ran.err.splitlines() == [
            "error: stages.0.student.image.layers = 40",
            "  deeper than the 12 layers it inherits from; use at most 12",
        ]

    def test_a_file_that_is_not_there_is_two_lines_and_exit_code_2(self, cli: Cli) -> None:
        ran = cli("jobs", "submit", "nowhere.yaml")

        assert ran.code == 2
        assert ran.err == "error: spec file nowhere.yaml\n  No such file or directory; name a YAML or JSON file\n"


class TestWatch:
    def test_success_is_lines_and_a_table_and_exit_code_0(self, cli: Cli, serve: Serve) -> None:
        events = [
            event(1, "job.created", "1 stages"),
            event(2, "teacher.loaded", **TEACHER),
            event(3, "worker.restarted", "worker 1 died"),
        ]
        starting = job(state="starting", attempt=1)
        evaluating = job(**RUNNING, stage={"state": "evaluating", "student": HALF}, progress={"step": 100})
        states = [job(), starting, at_step(1), at_step(7), at_step(50), evaluating, SUCCEEDED]
        serve(Server(*states, events=events).app())

        ran = cli("jobs", "watch", "job_1")

        assert ran.code == 0, ran.err
        assert ran.out == """\
worker.restarted: worker 1 died
job_1 shapes queued
job_1 shapes starting
job_1 shapes running
stage 1/1 half: 2.5M image params, 1.2M text params, 310M MACs
stage 1/1 half: step 1/100  loss 1.99  272 pairs/s  eta 1m39s
stage 1/1 half: step 50/100  loss 1.5  272 pairs/s  eta 50s
job_1 shapes succeeded
stage 1/1 half: val top-1 61.2 (teacher 65.0), top-5 90.0 (teacher 92.0)
stage 1/1 half: captions R@1 31.0 (teacher 33.0), R@10 70.0 (teacher 74.0)
| model   | image params | text params (without embedding) | MACs | val top-1 / top-5 | captions R@1 / R@10 |
|---------|--------------|---------------------------------|------|-------------------|---------------------|
| teacher |           5M |                            2.4M | 620M |       65.0 / 92.0 |         33.0 / 74.0 |
| half    |         2.5M |                            1.2M | 310M |       61.2 / 90.0 |         31.0 / 70.0 |
model shapes@1
"""

    def test_failure_says_where_and_why_and_exits_1(self, cli: Cli, serve: Serve) -> None:
        message = "/data/0.tar: none of 512 images decodes; name other shards"
        error = {"code": "no_images", "message": message, "stage": 0, "attempt": 2}
        serve(Server(at_step(5), job(state="failed", attempt=2, error=error, stage={"state": "failed"})).app())

        ran = cli("jobs", "watch", "job_1")

        assert ran.code == 1
        assert ran.out.splitlines()[-2:] == [
            "job_1 failed in stage 1 (half): no_images",
            "  /data/0.tar: none of 512 images decodes; name other shards",
        ]

    def test_cancelled_exits_3(self, cli: Cli, serve: Serve) -> None:
        serve(Server(at_step(5), job(state="cancelled", attempt=1)).app())

        assert cli("jobs", "watch", "job_1").code == 3

    def test_a_new_attempt_is_told(self, cli: Cli, serve: Serve) -> None:
        serve(Server(at_step(5), at_step(5) | {"attempt": 2}, SUCCEEDED | {"attempt": 2}).app())

        assert "job_1 shapes running (attempt 2)" in cli("jobs", "watch", "job_1").out

    def test_json_is_the_last_object_alone(self, cli: Cli, serve: Serve) -> None:
        serve(Server(SUCCEEDED).app())

        ran = cli("jobs", "watch", "job_1", "--json")

        assert json.loads(ran.out) == SUCCEEDED
        assert "job_1 shapes succeeded" in ran.err

    def test_no_server_exits_4_and_says_how_to_start_one(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TINYCLIP_URL", "http://127.0.0.1:9")

        ran = cli("jobs", "watch", "job_1")

        assert ran.code == 4
        assert ran.err == (
            "error: cannot reach http://127.0.0.1:9: [Errno 111] Connection refused\n"
            "  start one with `tinyclip-server up`, or name another with --url or TINYCLIP_URL\n"
        )

    def test_an_unknown_job_exits_2(self, cli: Cli, serve: Serve) -> None:
        async def missing(request: Request) -> Response:
            return JSONResponse(problem(404, "there is no job job_9; `jobs list` shows those there are"), 404)

        serve(Starlette(routes=[Route("/v1/jobs/job_9", missing)]))

        ran = cli("jobs", "watch", "job_9")

        assert ran.code == 2
        assert ran.err == "error: there is no job job_9\n  `jobs list` shows those there are\n"

    def test_it_outlives_a_restart_of_the_server(self, cli: Cli, serve: Serve) -> None:
        server = Server(at_step(5), at_step(6), SUCCEEDED, holding=0.3)
        served = serve(server.app())

        def restart() -> None:
            server.seen.acquire()
            served.stop()
            time.sleep(0.5)
            served.start()

        restarting = threading.Thread(target=restart)
        restarting.start()

        ran = cli("jobs", "watch", "job_1", "--patience", "20")
        restarting.join()

        assert ran.code == 0, ran.err
        assert ran.out.splitlines()[-1] == "model shapes@1"

    def test_a_server_that_stays_away_exits_4(self, cli: Cli, serve: Serve) -> None:
        server = Server(at_step(5), at_step(6), at_step(7))
        served = serve(server.app())

        def leave() -> None:
            server.seen.acquire()
            served.stop()

        leaving = threading.Thread(target=leave)
        leaving.start()

        ran = cli("jobs", "watch", "job_1", "--patience", "0.5")
        leaving.join()

        assert ran.code == 4


def test_a_list_is_a_table_with_a_way_to_the_rest(cli: Cli, serve: Serve) -> None:
    server = Server(job())
    serve(server.app())

    ran = cli("jobs", "list", "--state", "queued", "--label", "team:search", "--page-size", "2")

    assert server.asked[0][1] == "state=queued&label=team%3Asearch&page_size=2"
    lines = ran.out.splitlines()
    assert lines[0] == "| id    | name   | state     | done | stage | model    | created          |"
    assert lines[2].startswith("| job_1 | shapes | succeeded | 100% | 1/1   | shapes@1 | 2026-01-0")
    assert lines[-1] == "more: --page-token more"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["cancel", "job_1"], ("POST", "/v1/jobs/job_1/cancel", None)),
        (["pause", "job_1"], ("POST", "/v1/jobs/job_1/pause", None)),
        (["resume", "job_1"], ("POST", "/v1/jobs/job_1/resume", None)),
        (["clone", "job_1", "--set", "seed=3"], ("POST", "/v1/jobs/job_1/clone", {"set": {"seed": 3}})),
    ],
)
def test_a_wish_is_sent_and_the_state_shown(
    cli: Cli, serve: Serve, arguments: list[str], asked: tuple[str, str, JSON | None]
) -> None:
    server = Server(job())
    serve(server.app())

    ran = cli("jobs", *arguments)

    assert (ran.code, ran.out) == (0, "job_1 shapes cancelling\n")
    assert server.asked == [asked]


def test_deleting_says_nothing(cli: Cli, serve: Serve) -> None:
    server = Server(job())
    serve(server.app())

    ran = cli("jobs", "delete", "job_2")

    assert (ran.code, ran.out) == (0, "")
    assert server.asked == [("DELETE", "/v1/jobs/job_2", None)]


def test_usage_is_explained_and_exits_2(cli: Cli) -> None:
    ran = cli("jobs", "watch")

    assert ran.code == 2
    assert "JOB" in ran.err

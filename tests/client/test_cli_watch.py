"""`tinyclip-client jobs watch`: what it prints line by line, how it ends, and what it outlives."""

import json
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import event, job, problem
from tests.client.job_server import HALF, RUNNING, SUCCEEDED, TEACHER, Server, at_step


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip._resources.jobs._BETWEEN_SNAPSHOTS_SECONDS", 0.0)


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

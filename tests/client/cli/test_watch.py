"""`jobs watch`: its lines, its exit codes, and an interrupted server."""

import copy
import json
import threading
from collections.abc import Iterator

import pytest

from tests.client.conftest import Cli, Clock, LocalServer, Serve
from tests.client.documents import event, job, problem
from tests.client.servers import HALF, RUNNING, SUCCEEDED, TEACHER, JobServer, at_step, responding


def test_success_is_lines_and_a_table_and_exit_code_0(cli: Cli, serve: Serve) -> None:
    events = [
        event(1, "job.created", "1 stages"),
        event(2, "teacher.loaded", **TEACHER),
        event(3, "worker.restarted", "worker 1 died"),
    ]
    starting = job(state="starting", attempt=1)
    evaluating = job(**RUNNING, stage={"state": "evaluating", "student": HALF}, progress={"step": 100})
    states = [job(), starting, at_step(1), at_step(7), at_step(50), evaluating, SUCCEEDED]
    serve(JobServer(*states, events=events).app())

    result = cli("jobs", "watch", "job_1")

    assert result.code == 0, result.err
    assert result.out == """\
worker.restarted: worker 1 died
job_1 shapes queued
job_1 shapes starting
job_1 shapes running
stage 1/1 half: 2.5M image params, 2.4M text params of which 1.2M token embedding, 310M MACs
stage 1/1 half: step 1/100  loss 1.99  272 pairs/s  eta 1m39s
stage 1/1 half: step 50/100  loss 1.5  272 pairs/s  eta 50s
job_1 shapes succeeded
stage 1/1 half: val top-1 61.2 (teacher 65.0), top-5 90.0 (teacher 92.0)
stage 1/1 half: captions R@1 31.0 (teacher 33.0), R@10 70.0 (teacher 74.0)
| model   | image params | text params (token embedding) | MACs | val top-1 / top-5 | captions R@1 / R@10 | kept top-1 / R@10 |
|---------|--------------|-------------------------------|------|-------------------|---------------------|-------------------|
| teacher |           5M |                   4.8M (2.4M) | 620M |       65.0 / 92.0 |         33.0 / 74.0 |                 – |
| half    |         2.5M |                   2.4M (1.2M) | 310M |       61.2 / 90.0 |         31.0 / 70.0 |     94.2% / 94.6% |
model shapes@1
"""


def test_the_agreement_with_the_teacher_is_shown_and_a_decline_is_noted(cli: Cli, serve: Serve) -> None:
    events = [
        event(1, "agreement.measured", "KL to the teacher 0.9000 at step 0 of stage half"),
        event(2, "agreement.worse", "stage half agrees less with its teacher than at its start"),
    ]
    agreement = {"agreement": {"start_kl": 0.8765, "kl": 0.25, "step": 100}}
    running, ended = at_step(50), copy.deepcopy(SUCCEEDED)
    running["stages"][0]["metrics"] |= agreement
    ended["stages"][0]["metrics"] |= agreement
    serve(JobServer(running, ended, events=events).app())

    lines = cli("jobs", "watch", "job_1").out.splitlines()

    assert lines[0] == "agreement.worse: stage half agrees less with its teacher than at its start"
    assert "stage 1/1 half: step 50/100  loss 1.5  KL 0.25  272 pairs/s  eta 50s" in lines
    table = [line.split("|")[-2].strip() for line in lines if line.startswith("|")]
    assert [table[0], *table[2:]] == ["KL to teacher", "–", "0.876 → 0.25"]


def test_failure_prints_stage_and_reason_and_exits_with_1(cli: Cli, serve: Serve) -> None:
    message = "/data/0.tar: none of 512 images decodes; name other shards"
    error = {"code": "no_images", "message": message, "stage": 0, "attempt": 2}
    serve(JobServer(at_step(5), job(state="failed", attempt=2, error=error, stage={"state": "failed"})).app())

    result = cli("jobs", "watch", "job_1")

    assert result.code == 1
    assert result.out.splitlines()[-2:] == ["job_1 failed in stage 1 (half): no_images", f"  {message}"]


def test_cancellation_exits_with_3(cli: Cli, serve: Serve) -> None:
    serve(JobServer(at_step(5), job(state="cancelled", attempt=1)).app())

    assert cli("jobs", "watch", "job_1").code == 3


def test_a_new_attempt_is_reported(cli: Cli, serve: Serve) -> None:
    serve(JobServer(at_step(5), at_step(5) | {"attempt": 2}, SUCCEEDED | {"attempt": 2}).app())

    assert "job_1 shapes running (attempt 2)" in cli("jobs", "watch", "job_1").out


def test_a_wait_for_resources_is_printed_once_and_shown_by_get(cli: Cli, serve: Serve) -> None:
    waiting = at_step(1) | {"progress": at_step(1)["progress"] | {"waiting": "waiting for 2 CPUs, 0 free"}}
    events = [event(1, "worker_group.waiting", "waiting for 2 CPUs, 0 free"), event(2, "worker_group.placed", "reserved")]
    serve(JobServer(waiting, waiting, at_step(50), SUCCEEDED, events=events).app())

    watched = cli("jobs", "watch", "job_1").out
    serve(JobServer(waiting).app())
    shown = cli("jobs", "get", "job_1").out

    assert [line for line in watched.splitlines() if "CPUs" in line] == ["waiting for 2 CPUs, 0 free"]
    assert shown.splitlines()[0].endswith("  waiting for 2 CPUs, 0 free")


def test_json_is_the_last_object_alone(cli: Cli, serve: Serve) -> None:
    serve(JobServer(SUCCEEDED).app())

    result = cli("jobs", "watch", "job_1", "--json")

    assert json.loads(result.out) == SUCCEEDED
    assert "job_1 shapes succeeded" in result.err


def test_an_unreachable_server_exits_with_4_and_how_to_start_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYCLIP_URL", "http://127.0.0.1:9")

    result = cli("jobs", "watch", "job_1")

    assert result.code == 4
    assert result.err == (
        "error: cannot reach http://127.0.0.1:9: [Errno 111] Connection refused\n"
        "  start one with `tinyclip-server up`, or name another with --url or TINYCLIP_URL\n"
    )


def test_an_unknown_job_exits_with_2(cli: Cli, serve: Serve) -> None:
    serve(responding("/v1/jobs/job_9", problem(404, "there is no job job_9; `jobs list` shows those there are"), 404))

    result = cli("jobs", "watch", "job_9")

    assert result.code == 2
    assert result.err == "error: there is no job job_9\n  `jobs list` shows those there are\n"


class TestInterruptedServer:
    """The server is stopped while it holds a long poll."""

    @pytest.fixture
    def server(self) -> JobServer:
        server = JobServer(at_step(5), at_step(6), SUCCEEDED)
        server.hangs = True
        return server

    @pytest.fixture
    def local_server(self, server: JobServer) -> Iterator[LocalServer]:
        """A server of its own, which a thread stops at the second request."""
        local_server = LocalServer()

        def stop() -> None:
            server.seen.acquire()
            server.seen.acquire()
            local_server.stop()

        stopping = threading.Thread(target=stop)
        stopping.start()
        yield local_server
        stopping.join()
        local_server.stop()

    def test_a_restart_is_outlasted(self, cli: Cli, serve: Serve, server: JobServer, clock: Clock) -> None:
        local_server = serve(server.app())

        def restart() -> None:
            if clock.now > 1010 and server.hangs:
                assert local_server.stopped.wait(30)
                server.hangs = False
                local_server.start()

        clock.during_sleep = restart

        result = cli("jobs", "watch", "job_1", "--patience", "20")

        assert result.code == 0, result.err
        assert result.out.splitlines()[-1] == "model shapes@1"

    def test_a_server_that_stays_away_exits_with_4(self, cli: Cli, serve: Serve, server: JobServer, clock: Clock) -> None:
        serve(server.app())

        assert cli("jobs", "watch", "job_1", "--patience", "20").code == 4
        assert 1010 < clock.now < 1021

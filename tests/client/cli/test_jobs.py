"""`jobs …` other than `watch`."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, PROBLEM, job, page
from tests.client.servers import HALF, SUCCEEDED, TEACHER, JobServer, responding


@pytest.fixture
def server(serve: Serve) -> JobServer:
    server = JobServer(job())
    serve(server.app())
    return server


class TestSubmit:
    @pytest.fixture
    def spec_file(self, tmp_path: Path) -> Path:
        file = tmp_path / "shapes.yaml"
        file.write_text("name: shapes\ndata: {train: {shards: pairs.tar}}\n")
        return file

    def test_it_prints_the_job(self, cli: Cli, server: JobServer, spec_file: Path) -> None:
        result = cli("jobs", "submit", str(spec_file), "--set", "optimizer.lr=1e-4")

        assert (result.code, result.out, result.err) == (0, "job_1 shapes queued\n", "")
        sent = {"name": "shapes", "data": {"train": {"shards": f"{spec_file.parent}/pairs.tar"}}, "optimizer": {"lr": 1e-4}}
        assert server.requests == [("POST", "", sent)]

    def test_json_is_the_api_s_object_and_nothing_else(self, cli: Cli, server: JobServer, spec_file: Path) -> None:
        server.states = [job(a_field_of_tomorrow=1)]

        result = cli("jobs", "submit", str(spec_file), "--json")

        assert json.loads(result.out) == job(a_field_of_tomorrow=1)
        assert result.err == ""

    def test_a_dry_run_prints_the_plan(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        stage = {
            "index": 0, "name": "half", "inherit": "manual", "steps": 100, "samples": 6400, "student": HALF,
            "device_hours": 0.0123,
        }
        searched = {**stage, "name": "search", "inherit": "auto", "student": {**HALF, "estimated": True}, "lr": "auto"}
        stage["lr"] = 3e-4
        plan = {
            "spec": job()["spec"], "teacher": TEACHER, "stages": [stage, searched], "steps": 100, "samples_per_epoch": 512,
            "device": "cpu", "device_hours": 0.0123, "warnings": ["12 of 512 captions are longer than 16 tokens"],
        }

        async def validate(request: Request) -> Response:
            assert request.query_params["validate_only"] == "true"
            return JSONResponse(plan)

        serve(Starlette(routes=[Route("/v1/jobs", validate, methods=["POST"])]))

        result = cli("jobs", "submit", str(spec_file), "--dry-run")

        assert result.code == 0
        assert result.out == """\
| model   | inherit | image params | text params (token embedding) |  MACs |     lr | steps | samples | device-hours |
|---------|---------|--------------|-------------------------------|-------|--------|-------|---------|--------------|
| teacher |         |           5M |                   4.8M (2.4M) |  620M |        |       |         |              |
| half    | manual  |         2.5M |                   2.4M (1.2M) |  310M | 0.0003 |   100 |    6.4k |       0.0123 |
| search  | auto    |        ~2.5M |                 ~2.4M (~1.2M) | ~310M |   auto |   100 |    6.4k |       0.0123 |
100 steps on cpu, about 0.0123 device-hours; 512 pairs an epoch
warning: 12 of 512 captions are longer than 16 tokens
"""

    def test_an_invalid_field_is_two_lines_and_exit_code_2(self, cli: Cli, serve: Serve, spec_file: Path) -> None:
        serve(responding("/v1/jobs", PROBLEM, 422))

        result = cli("jobs", "submit", str(spec_file))

        assert (result.code, result.out) == (2, "")
        assert result.err.splitlines() == [
            "error: stages.0.student.image.layers = 40",
            "  deeper than the 12 layers it inherits from; use at most 12",
        ]

    def test_a_missing_file_is_two_lines_and_exit_code_2(self, cli: Cli) -> None:
        result = cli("jobs", "submit", "nowhere.yaml")

        assert result.code == 2
        assert result.err == "error: spec file nowhere.yaml\n  No such file or directory; name a YAML or JSON file\n"


def test_list_is_a_table_with_the_token_of_the_next_page(cli: Cli, server: JobServer) -> None:
    result = cli("jobs", "list", "--state", "queued", "--state", "paused", "--label", "team:search", "--search", "a b",
                 "--parent", "sea_1", "--page-size", "2")  # fmt: skip

    assert server.requests[0][1] == "state=queued&state=paused&label=team%3Asearch&search=a+b&parent=sea_1&page_size=2"
    lines = result.out.splitlines()
    assert lines[0] == "| id    | name   | state     | done | stage | model    | created          |"
    assert lines[2].startswith("| job_1 | shapes | succeeded | 100% | 1/1   | shapes@1 | 2026-01-0")
    assert lines[-1] == "more: --page-token more"


@pytest.mark.parametrize(
    ("arguments", "request_sent"),
    [
        (["cancel", "job_1"], ("POST", "/v1/jobs/job_1/cancel", None)),
        (["pause", "job_1"], ("POST", "/v1/jobs/job_1/pause", None)),
        (["resume", "job_1"], ("POST", "/v1/jobs/job_1/resume", None)),
        (["retry", "job_1"], ("POST", "/v1/jobs/job_1/retry", None)),
        (
            ["update", "job_1", "--priority", "3", "--label", "team:search"],
            ("PATCH", "/v1/jobs/job_1", {"labels": {"team": "search"}, "priority": 3}),
        ),
        (["clone", "job_1", "--set", "seed=3"], ("POST", "/v1/jobs/job_1/clone", {"set": {"seed": 3}})),
    ],
)
def test_a_change_is_sent_and_the_state_printed(
    cli: Cli, server: JobServer, arguments: list[str], request_sent: tuple[str, str, JSON | None]
) -> None:
    result = cli("jobs", *arguments)

    assert (result.code, result.out) == (0, "job_1 shapes cancelling\n")
    assert server.requests == [request_sent]


def test_delete_prints_nothing(cli: Cli, server: JobServer) -> None:
    result = cli("jobs", "delete", "job_2")

    assert (result.code, result.out) == (0, "")
    assert server.requests == [("DELETE", "/v1/jobs/job_2", None)]


def test_invalid_usage_exits_with_2(cli: Cli) -> None:
    watch, update = cli("jobs", "watch"), cli("jobs", "update", "job_1")

    assert (watch.code, "JOB" in watch.err) == (2, True)
    assert (update.code, update.err) == (2, "error: jobs update\n  give --name, --label or --priority\n")


def test_metrics_are_a_table_with_a_curve(cli: Cli, serve: Serve) -> None:
    loss = [{"stage": 0, "step": step, "value": 8.0 - step} for step in range(8)]
    series = {"loss": loss, "lr": [{"stage": 1, "step": 5, "value": 0.1}]}
    serve(responding("/v1/jobs/job_1/metrics", {"series": series}))

    assert cli("jobs", "metrics", "job_1", "--names", "loss,lr").out.splitlines() == [
        "| series | stage | step | first | last | least | most | curve    |",
        "|--------|-------|------|-------|------|-------|------|----------|",
        "| loss   |     1 |    7 |     8 |    1 |     1 |    8 | █▇▆▅▄▃▂▁ |",
        "| lr     |     2 |    5 |   0.1 |  0.1 |   0.1 |  0.1 | ▁        |",
    ]


def test_checkpoints_are_a_table(cli: Cli, serve: Serve) -> None:
    written = {"created_at": "2026-01-02T03:04:05Z", "bytes": 1_500_000, "stage": 0}
    own = {"step": 20, "attempt": 1, "path": "jobs/job_1/stages/0-s/a1/step-20", **written}
    adopted = {"step": 10, "attempt": 0, "path": "jobs/job_1/stages/0-s/a0/step-10", **written}
    serve(responding("/v1/jobs/job_1/checkpoints", page(own, adopted)))

    lines = cli("jobs", "checkpoints", "job_1").out.splitlines()

    assert lines[2].startswith("|     1 |   20 |       1 | 1.5MB | 2026-01-0")
    assert lines[3].startswith("|     1 |   10 | adopted | 1.5MB | 2026-01-0")


def test_followed_logs_begin_at_the_tail_and_continue_after_it(cli: Cli, serve: Serve) -> None:
    requests: list[tuple[str, str | None]] = []

    async def logs(request: Request) -> Response:
        requests.append((str(request.url.query), request.headers.get("last-event-id")))
        number = 7 + len(requests)
        line = {
            "id": number, "attempt": 1, "level": "info", "source": "driver", "message": f"line {number}",
            "created_at": "2026-01-02T03:04:05Z",
        }
        return Response(f"id: {number}\ndata: {json.dumps(line)}\n\n", media_type="text/event-stream")

    serve(Starlette(routes=[Route("/v1/jobs/job_1/logs", logs), Route("/v1/jobs/job_1", JobServer(SUCCEEDED).job)]))

    result = cli("jobs", "logs", "job_1", "--follow", "--tail", "2")

    assert [line.split(": ", 1)[1] for line in result.out.splitlines()] == ["line 8", "line 9"]
    assert requests == [("tail=2", None), ("tail=2", "8")]


def test_followed_metrics_are_a_line_a_point(cli: Cli, serve: Serve) -> None:
    async def metrics(request: Request) -> Response:
        points = [{"name": "loss", "stage": 0, "step": step, "value": 8.0 - step} for step in (1, 2)]
        after = int(request.headers["last-event-id"])
        messages = [f"id: {number}\ndata: {json.dumps(point)}\n\n" for number, point in enumerate(points, 1) if number > after]
        return Response("".join(messages), media_type="text/event-stream")

    serve(Starlette(routes=[Route("/v1/jobs/job_1/metrics", metrics), Route("/v1/jobs/job_1", JobServer(SUCCEEDED).job)]))

    assert cli("jobs", "metrics", "job_1", "-f").out.splitlines() == ["stage 1 step 1 loss 7", "stage 1 step 2 loss 6"]
    assert json.loads(cli("jobs", "metrics", "job_1", "-f", "--json").out.splitlines()[1]) == {
        "name": "loss", "stage": 0, "step": 2, "value": 6.0,
    }


def test_the_layout_of_a_stage_is_saved(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    serve(responding("/v1/jobs/job_1/stages/2/layout.svg", "<svg/>"))
    target = tmp_path / "layout.svg"

    result = cli("jobs", "layout", "job_1", "--stage", "2", "-o", str(target))

    assert (result.code, result.out) == (0, f"{target}\n")
    assert target.read_text() == "<svg/>"

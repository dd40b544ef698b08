"""`tinyclip-client jobs …`, as a person and as a script see it."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip.cli.display.numbers import curve

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, PROBLEM, job, page
from tests.client.job_server import HALF, SUCCEEDED, TEACHER, Server


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
        searched = {**stage, "name": "search", "inherit": "auto", "student": {**HALF, "estimated": True}}
        plan = {
            "spec": job()["spec"], "teacher": TEACHER, "stages": [stage, searched], "steps": 100, "samples_per_epoch": 512,
            "device": "cpu", "device_hours": 0.0123, "warnings": ["12 of 512 captions are longer than 16 tokens"],
        }

        async def validate(request: Request) -> Response:
            assert request.query_params["validate_only"] == "true"
            return JSONResponse(plan)

        serve(Starlette(routes=[Route("/v1/jobs", validate, methods=["POST"])]))

        ran = cli("jobs", "submit", str(spec_file), "--dry-run")

        assert ran.code == 0
        assert ran.out == """\
| model   | inherit | image params | text params (without embedding) |  MACs | steps | samples | device-hours |
|---------|---------|--------------|---------------------------------|-------|-------|---------|--------------|
| teacher |         |           5M |                            2.4M |  620M |       |         |              |
| half    | manual  |         2.5M |                            1.2M |  310M |   100 |    6.4k |       0.0123 |
| search  | auto    |        ~2.5M |                           ~1.2M | ~310M |   100 |    6.4k |       0.0123 |
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


def test_a_list_is_a_table_with_a_way_to_the_rest(cli: Cli, serve: Serve) -> None:
    server = Server(job())
    serve(server.app())

    ran = cli("jobs", "list", "--state", "queued", "--state", "paused", "--label", "team:search", "--page-size", "2")

    assert server.asked[0][1] == "state=queued&state=paused&label=team%3Asearch&page_size=2"
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
        (["retry", "job_1"], ("POST", "/v1/jobs/job_1/retry", None)),
        (
            ["update", "job_1", "--priority", "3", "--label", "team:search"],
            ("PATCH", "/v1/jobs/job_1", {"labels": {"team": "search"}, "priority": 3}),
        ),
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


def test_an_update_without_a_change_says_what_can_be_changed(cli: Cli) -> None:
    ran = cli("jobs", "update", "job_1")

    assert (ran.code, ran.err) == (2, "error: jobs update\n  give --name, --label or --priority\n")


def test_metrics_are_a_table_with_a_curve(cli: Cli, serve: Serve) -> None:
    loss = [{"stage": 0, "step": step, "value": 8.0 - step} for step in range(8)]
    serve(told("metrics", {"series": {"loss": loss, "lr": [{"stage": 1, "step": 5, "value": 0.1}]}}))

    ran = cli("jobs", "metrics", "job_1", "--names", "loss,lr")

    assert ran.out.splitlines() == [
        "| series | stage | step | first | last | least | most | curve    |",
        "|--------|-------|------|-------|------|-------|------|----------|",
        "| loss   |     1 |    7 |     8 |    1 |     1 |    8 | █▇▆▅▄▃▂▁ |",
        "| lr     |     2 |    5 |   0.1 |  0.1 |   0.1 |  0.1 | ▁        |",
    ]


def test_a_peak_is_seen_in_a_curve_that_is_narrower_than_the_series() -> None:
    assert curve([1.0] * 50 + [9.0] + [1.0] * 49, width=10) == "▁▁▁▁▁█▁▁▁▁"


def test_checkpoints_are_a_table(cli: Cli, serve: Serve) -> None:
    one = {"stage": 0, "step": 20, "attempt": 1, "path": "jobs/job_1/stages/0-s/a1/step-20", "bytes": 1_500_000}
    adopted = {**one, "attempt": 0, "path": "jobs/job_1/stages/0-s/a0/step-10", "step": 10}
    written = {"created_at": "2026-01-02T03:04:05Z"}
    serve(told("checkpoints", page({**one, **written}, {**adopted, **written})))

    lines = cli("jobs", "checkpoints", "job_1").out.splitlines()

    assert lines[2].startswith("|     1 |   20 |       1 | 1.5MB | 2026-01-0")
    assert lines[3].startswith("|     1 |   10 | adopted | 1.5MB | 2026-01-0")


def test_following_logs_begins_at_the_tail_and_goes_on_without_it(cli: Cli, serve: Serve) -> None:
    asked: list[tuple[str, str | None]] = []

    async def logs(request: Request) -> Response:
        asked.append((str(request.url.query), request.headers.get("last-event-id")))
        number = 7 + len(asked)
        line = {
            "id": number, "attempt": 1, "level": "info", "source": "driver", "message": f"line {number}",
            "created_at": "2026-01-02T03:04:05Z",
        }
        return Response(f"id: {number}\ndata: {json.dumps(line)}\n\n", media_type="text/event-stream")

    serve(Starlette(routes=[Route("/v1/jobs/job_1/logs", logs), Route("/v1/jobs/job_1", Server(SUCCEEDED).job)]))

    ran = cli("jobs", "logs", "job_1", "--follow", "--tail", "2")

    assert [line.split(": ", 1)[1] for line in ran.out.splitlines()] == ["line 8", "line 9"]
    assert asked == [("tail=2", None), ("tail=2", "8")]


def told(what: str, document: JSON) -> Starlette:
    """A server that knows one thing about a job."""

    async def answer(request: Request) -> Response:
        return JSONResponse(document)

    return Starlette(routes=[Route(f"/v1/jobs/job_1/{what}", answer)])


def test_the_picture_of_a_stage_is_saved(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    async def picture(request: Request) -> Response:
        return Response("<svg/>", media_type="image/svg+xml")

    serve(Starlette(routes=[Route("/v1/jobs/job_1/stages/2/layout.svg", picture)]))
    target = tmp_path / "layout.svg"

    ran = cli("jobs", "layout", "job_1", "--stage", "2", "-o", str(target))

    assert (ran.code, ran.out) == (0, f"{target}\n")
    assert target.read_text() == "<svg/>"

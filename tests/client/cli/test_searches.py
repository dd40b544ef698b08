"""`searches …`: what is sent, what is shown, and the exit codes."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip import Client
from tinyclip.cli import watch_search
from tinyclip.cli.display.searches import show_plan
from tinyclip.schemas import SearchPlan

from tests.client.conftest import Cli, Serve
from tests.client.documents import job

TIMES = {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "finished_at": None}
TASK = {"name": "emoji", "kind": "zero_shot", "shards": "/a.tar", "classes": ["cat"], "label_key": "cls"}
MODEL = {"name": "emoji", "version": 1}
SPEC = job()["spec"] | {"evaluation": {"tasks": [TASK]}}
CANDIDATE = {"model": MODEL, "trial": 0, "params": 3_700_000, "macs": 310_000_000, "is_feasible": True,
             "measurements": [{"engine": "openvino", "latency_ms": {"image:1": 3.14159}, "bytes": 14_800_000}]}  # fmt: skip
FILE = """\
spec: spec.yaml
constraints: [{latency_ms: {max: 4}, engine: openvino}]
vary: {optimizer.lr: [0.0001, 0.0002]}
budget: {trials: 2, at_once: 2}
"""
PLAN = {
    "spec": SPEC, "teacher": None, "stages": [], "steps": 20, "samples_per_epoch": 9, "device": "cpu", "device_hours": 0.2,
}  # fmt: skip


def search(**changes: Any) -> dict[str, Any]:
    return {
        "id": "sea_1", "name": "emoji", "project": "default", "state": "running", "phase": "trials", "etag": "1.1",
        "post": {"spec": SPEC, "constraints": [], "vary": {"optimizer.lr": [1e-4, 2e-4]}}, **TIMES, **changes,
    }  # fmt: skip


TRIALS = [
    {"number": 0, "job": "job_1", "state": "succeeded", "settings": {"optimizer.lr": 1e-4}, "params": 3_700_000,
     "bytes": 14_800_000, "quality": {"emoji": {"top1": 0.4}}, "device_hours": 0.12},
    {"number": 1, "job": None, "state": "failed", "settings": {"optimizer.lr": 2e-4}, "error": "it cannot be planned"},
]  # fmt: skip
ENDED = search(
    state="succeeded", message="", trials=TRIALS, front=[CANDIDATE], recommended=CANDIDATE, reason="the smallest of 1",
    teacher_quality={"emoji": {"top1": 0.5}}, importance={"optimizer.lr": 1.0},
)  # fmt: skip
CHARTED = [
    {"number": number, "job": None, "state": "succeeded", "bytes": size, "quality": {"emoji": {"top1": 0.1 + number / 10}}}
    for number, size in enumerate((5_000_000, 9_000_000))
]
EVENT = {
    "id": 1, "search": "sea_1", "type": "trial.begun", "trial": 0, "message": "trial 0 begins",
    "created_at": "2026-01-02T03:04:05Z",
}


class SearchServer:
    """A server with one search."""

    def __init__(self, document: dict[str, Any] = ENDED) -> None:
        self.document = document
        self.requests: list[tuple[str, str, Any]] = []

    def app(self) -> Starlette:
        paths = ("/v1/searches", "/v1/searches/sea_1", "/v1/searches/sea_1/{action}", "/v1/jobs/job_3")
        return Starlette(routes=[Route(path, self.answer, methods=["GET", "POST", "DELETE"]) for path in paths])

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.requests.append((request.method, target, json.loads(body) if body else None))
        if request.method == "DELETE":
            return Response(status_code=204)
        if request.url.path.startswith("/v1/jobs/"):
            return JSONResponse(job(state="running", progress={"step": 3, "steps": 7}))
        if request.url.path.endswith("/events") and "page_size" in target:
            return JSONResponse({"items": [EVENT]})
        if request.url.path.endswith("/events"):
            return Response(f"id: 1\ndata: {json.dumps(EVENT)}\n\n", media_type="text/event-stream")
        if "validate_only=true" in target:
            document = {"trials": 2, "steps": 40, "device_hours": 0.4, "hours": 0.2, "plan": PLAN, "warnings": ["it is slow"]}
            return JSONResponse(document)
        if (request.method, request.url.path) == ("GET", "/v1/searches"):
            return JSONResponse({"items": [self.document]})
        return JSONResponse(self.document, 201 if request.method == "POST" else 200)


@pytest.fixture
def server(serve: Serve) -> SearchServer:
    server = SearchServer()
    serve(server.app())
    return server


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "spec.yaml").write_text("name: emoji\ndata: {train: {shards: a.tar}}\n")
    (tmp_path / "search.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "search.yaml"


def test_the_spec_may_be_a_file_and_paths_become_absolute(cli: Cli, server: SearchServer, file: str, tmp_path: Path) -> None:
    result = cli("searches", "create", file)

    assert (result.code, result.err) == (0, "")
    (_, _, sent), = server.requests
    assert sent["spec"]["data"]["train"]["shards"] == str(tmp_path / "a.tar")
    assert sent["vary"] == {"optimizer.lr": [1e-4, 2e-4]}


def test_a_search_is_shown_with_trials_and_front(cli: Cli, server: SearchServer) -> None:
    out = cli("searches", "get", "sea_1").out

    assert out == """\
sea_1 emoji succeeded
| trial | rung | chosen              | state     | params | emoji top-1 (of teacher) | device time |
|-------|------|---------------------|-----------|--------|--------------------------|-------------|
|       |      | teacher             |           |        |                     50.0 |             |
|     0 |    0 | optimizer.lr 0.0001 | succeeded |   3.7M |             40.0 (80.0%) |       7m12s |
|     1 |    0 | optimizer.lr 0.0002 | failed    |      – |                        – |          0s |
trial 1: it cannot be planned
|   | model   | trial | params |  bytes | emoji top-1 (of teacher) | meets the constraints |
|---|---------|-------|--------|--------|--------------------------|-----------------------|
| * | emoji@1 |     0 |   3.7M | 14.8MB |             40.0 (80.0%) | yes                   |
| model   | engine   | image:1 ms |  bytes |
|---------|----------|------------|--------|
| emoji@1 | openvino |       3.14 | 14.8MB |
the smallest of 1
| setting      | share of the variation |
|--------------|------------------------|
| optimizer.lr |                   100% |
"""


def test_a_dry_run_shows_the_plan(cli: Cli, server: SearchServer, file: str) -> None:
    assert cli("searches", "create", file, "--dry-run").out == (
        "at most 2 trials\n"
        "40 steps, about 0.4 device-hours on cpu\n"
        "takes about 12m00s, 2 trials at once, if none waits for devices\n"
        "not included: measuring latencies, of layouts before the trials and of the finalists after them\n"
        "warning: it is slow\n"
    )


def test_a_plan_names_the_rungs(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"trials": 12, "trials_by_rung": [7, 2, 3], "device_hours": 0.4, "plan": PLAN}

    show_plan(SearchPlan.model_validate(document))

    assert capsys.readouterr().out == (
        "at most 12 trials: 7 short, then 2 longer, then 3 whole trainings\nabout 0.4 device-hours on cpu\n"
    )


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_watching_shows_events_and_exits_with_the_state(cli: Cli, serve: Serve, state: str, code: int) -> None:
    serve(SearchServer(search(state=state)).app())

    result = cli("searches", "watch", "sea_1")

    assert (result.code, "trial.begun trial 0 begins" in result.out) == (code, True)
    assert result.out.splitlines()[-1] == f"sea_1 emoji {state}"


def test_an_interrupt_leaves_the_search_running(cli: Cli, server: SearchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch_search, "show_event", interrupt)

    result = cli("searches", "watch", "sea_1")

    assert result.code == 130
    assert "`tinyclip-client searches watch sea_1` follows it again" in result.err
    assert "`tinyclip-client searches cancel sea_1` ends it" in result.err
    assert not [request for request in server.requests if request[0] == "POST"]


def test_on_a_terminal_progress_is_drawn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SearchServer(search(trials=[*TRIALS, {"number": 2, "job": "job_3", "state": "running"}]))
    screen = io.StringIO()
    monkeypatch.setattr(watch_search.time, "sleep", lambda _: setattr(server, "document", ENDED))

    with Client(serve(server.app()).url, "secret") as client:
        watch_search.watch_search(client, "sea_1", Console(file=screen, force_terminal=True, width=110), 5.0)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "trial 0 begins" in text
    assert "2/12 ended, 1 running" in text
    assert "trial 2" in text
    assert "3/7" in text


def test_a_chart_is_saved(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    serve(SearchServer(search(trials=CHARTED)).app())

    result = cli("searches", "get", "sea_1", "--plot", str(tmp_path / "front.svg"), "--json")

    assert (result.code, json.loads(result.out)["id"]) == (0, "sea_1")
    assert (tmp_path / "front.svg").read_text().startswith("<svg")


def test_a_chart_needs_two_trials_and_an_svg(cli: Cli, server: SearchServer, tmp_path: Path) -> None:
    assert "no two finished trials" in cli("searches", "get", "sea_1", "--plot", str(tmp_path / "front.svg")).err
    assert "ends in .svg" in cli("searches", "get", "sea_1", "--plot", "front.jpeg").err


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_actions(cli: Cli, server: SearchServer, action: str) -> None:
    assert cli("searches", action, "sea_1").code == 0
    assert server.requests[0][:2] == ("POST", f"/v1/searches/sea_1/{action}")


def test_list_and_delete(cli: Cli, server: SearchServer) -> None:
    assert "sea_1" in cli("searches", "list", "--state", "running").out
    assert cli("searches", "delete", "sea_1").err == "deleted sea_1\n"
    assert [request[:2] for request in server.requests] == [
        ("GET", "/v1/searches?state=running&page_size=50"), ("DELETE", "/v1/searches/sea_1"),
    ]  # fmt: skip


def test_json_is_the_object_of_the_api(cli: Cli, server: SearchServer) -> None:
    assert json.loads(cli("searches", "get", "sea_1", "--json").out) == ENDED

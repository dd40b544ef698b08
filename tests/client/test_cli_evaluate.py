"""`models evaluate`: the file that is sent, the table that is shown, the file that is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip.errors import InputError
from tinyclip.specfile import load_tasks

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, problem

TASKS = """\
- {name: cars, kind: zero_shot, shards: wds_cars}
- {name: pets, kind: linear_probe, train_shards: "s3://b/train.tar", shards: ["a.tar", "/b.tar"], }
- {name: own, kind: zero_shot, shards: "*.tar", classes: classes.txt, templates: ["a {}."]}
"""


def scores(top1: float) -> JSON:
    worst = {
        "class": "coupe", "row": 1, "samples": 8, "top1": 0.25,
        "mistaken_for": [{"class": "van", "row": 0, "share": 0.5}, {"class": "bus", "row": 2, "share": 0.25}],
    }
    return {
        "top1": top1, "top5": 0.9, "mean_per_class": top1, "per_class": [0.75, top1 / 2, None], "worst_classes": [worst],
        "samples": 16, "skipped": 0, "skipped_shards": 0, "ms_per_image": 1.234,
    }


class Server:
    """An evaluation that is done at the second look."""

    def __init__(self) -> None:
        self.asked: list[JSON] = []
        self.states = ["running", "succeeded"]
        self.more: JSON = {}
        self.refusal: JSON | None = None

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/evaluations", self.create, methods=["POST"]),
            Route("/v1/evaluations/eval_1", self.get),
        ])

    def described(self, state: str) -> JSON:
        found = {"cars": {"student": scores(0.5), "teacher": scores(0.75)}} if state == "succeeded" else {}
        return {
            "id": "eval_1", "model": "shapes@1", "against": "ViT-B-32/openai",
            "tasks": [{"name": "cars", "kind": "zero_shot", "shards": "/d"}], "holdout": 0.0, "state": state, "progress": 0.5,
            "message": "", "warnings": [], "results": found, "error": None, "ray_submission_id": "tc-evaluation-eval_1-a1",
            "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z", "finished_at": None, **self.more,
        }

    async def create(self, request: Request) -> Response:
        self.asked.append({**await request.json(), "key": request.headers.get("idempotency-key")})
        return JSONResponse(self.refusal, 422) if self.refusal else JSONResponse(self.described("queued"), 201)

    async def get(self, request: Request) -> Response:
        return JSONResponse(self.described(self.states.pop(0) if len(self.states) > 1 else self.states[0]))


@pytest.fixture
def server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    made = Server()
    serve(made.app())
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tasks.yaml").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(cli: Cli, *more: str) -> Any:
    return cli("models", "evaluate", "shapes@best", "--task", "tasks/tasks.yaml", *more)


def test_shows_both_models_and_the_worst_classes(cli: Cli, server: Server, folder: Path) -> None:
    ran = evaluate(cli, "--against", "ViT-B-32/openai")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == """\
eval_1 shapes@1 succeeded
| task | percent        | shapes@1 | ViT-B-32/openai |
|------|----------------|----------|-----------------|
| cars | top-1          |     50.0 |            75.0 |
| cars | top-5          |     90.0 |            90.0 |
| cars | mean per class |     50.0 |            75.0 |
| cars | ms per image   |    1.234 |           1.234 |
| cars | images         |       16 |              16 |
| cars: worst classes | images | shapes@1 | ViT-B-32/openai | mistaken for       |
|---------------------|--------|----------|-----------------|--------------------|
| coupe               |      8 |     25.0 |            37.5 | van 50.0, bus 25.0 |
"""


def test_sends_the_tasks_with_paths_beside_their_file(cli: Cli, server: Server, folder: Path) -> None:
    evaluate(cli, "--against", "local-dir:teacher")

    asked, beside = server.asked[0], f"{folder}/tasks"
    assert (asked["model"], asked["against"]) == ("shapes@best", f"local-dir:{folder}/teacher")
    assert asked["key"]
    cars, pets, own = asked["tasks"]
    assert cars == {"name": "cars", "kind": "zero_shot", "shards": f"{beside}/wds_cars"}
    assert (pets["train_shards"], pets["shards"]) == ("s3://b/train.tar", [f"{beside}/a.tar", "/b.tar"])
    assert (own["classes"], own["templates"]) == (f"{beside}/classes.txt", ["a {}."])
    assert "holdout" not in asked


def test_json_and_the_file_are_the_apis_object(cli: Cli, server: Server, folder: Path) -> None:
    ran = evaluate(cli, "--json", "--out", "numbers.json")

    assert json.loads(ran.out) == server.described("succeeded")
    assert json.loads((folder / "numbers.json").read_text()) == server.described("succeeded")


def test_does_not_wait_if_told(cli: Cli, server: Server, folder: Path) -> None:
    assert evaluate(cli, "--no-wait").out == "eval_1 shapes@1 queued\n"


def test_one_that_fails_says_why_and_exits_1(cli: Cli, server: Server, folder: Path) -> None:
    server.states, server.more = ["failed"], {"message": "task cars has nothing to evaluate", "warnings": ["odd"]}

    ran = evaluate(cli)

    assert (ran.code, ran.out) == (1, "eval_1 shapes@1 failed: task cars has nothing to evaluate\n")
    assert ran.err == "warning: odd\n"


def test_a_refusal_names_the_field(cli: Cli, server: Server, folder: Path) -> None:
    wrong = {"pointer": "/tasks/0/classes", "value": None, "message": "task cars says no classes; give a list"}
    server.refusal = problem(422, "…", errors=[wrong])

    ran = evaluate(cli)

    assert (ran.code, ran.err) == (2, "error: tasks.0.classes\n  task cars says no classes; give a list\n")


@pytest.mark.parametrize("out", ["nowhere/numbers.json", "tasks"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_asked(
    cli: Cli, server: Server, folder: Path, out: str
) -> None:
    ran = evaluate(cli, "--out", out)

    assert (ran.code, ran.err) == (2, f"error: --out {out}\n  name a file in an existing folder\n")
    assert server.asked == []


TASK = "{name: a, kind: retrieval, shards: x.tar}"


@pytest.mark.parametrize(
    ("text", "holdout"),
    [
        (TASK, None),
        (f"[{TASK}]", None),
        (f"{{tasks: [{TASK}], holdout: 0.2}}", 0.2),
        (f"{{name: job, data: {{train: {{shards: y, holdout: 0.1}}}}, evaluation: {{tasks: [{TASK}]}}}}", 0.1),
    ],
)
def test_a_task_file_may_be_a_task_a_list_or_a_spec(tmp_path: Path, text: str, holdout: float | None) -> None:
    (tmp_path / "t.yaml").write_text(text)

    assert load_tasks(tmp_path / "t.yaml") == ([{"name": "a", "kind": "retrieval", "shards": f"{tmp_path}/x.tar"}], holdout)


@pytest.mark.parametrize("text", ["", "a", "[1]", "[]", "{name: a}", "{evaluation: {tasks: []}}", "{tasks: x}"])
def test_a_file_without_tasks_says_what_to_write(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)

    with pytest.raises(InputError, match="holds no evaluation tasks"):
        load_tasks(tmp_path / "t.yaml")

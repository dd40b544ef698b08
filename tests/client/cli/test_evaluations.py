"""`models evaluate`: the tasks that are sent, the tables and the file."""

import json
from pathlib import Path

import pytest

from tests.client.conftest import Cli, Result, Serve
from tests.client.servers import EvaluationServer

TASKS = """\
- {name: cars, kind: zero_shot, shards: wds_cars}
- {name: pets, kind: linear_probe, train_shards: "s3://b/train.tar", shards: ["a.tar", "/b.tar"], }
- {name: own, kind: zero_shot, shards: "*.tar", classes: classes.txt, templates: ["a {}."]}
"""


@pytest.fixture
def server(serve: Serve) -> EvaluationServer:
    server = EvaluationServer()
    serve(server.app())
    return server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tasks.yaml").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(cli: Cli, *more: str) -> Result:
    return cli("models", "evaluate", "shapes@best", "--task", "tasks/tasks.yaml", *more)


def test_it_prints_both_models_and_the_worst_classes(cli: Cli, server: EvaluationServer) -> None:
    result = evaluate(cli, "--against", "ViT-B-32/openai")

    assert (result.code, result.err) == (0, "")
    assert result.out == """\
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


def test_nested_embeddings_have_a_row_for_each_smaller_size(cli: Cli, server: EvaluationServer) -> None:
    server.by_size = {"32": {"top1": 0.4, "top5": 0.8}, "64": {"top1": 0.45}}

    lines = evaluate(cli, "--against", "ViT-B-32/openai").out.splitlines()

    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "numbers" in line]
    assert [row[:3] for row in cells] == [
        ["cars, 32 numbers", "top-1", "40.0"], ["cars, 32 numbers", "top-5", "80.0"], ["cars, 64 numbers", "top-1", "45.0"]
    ]  # fmt: skip


def test_the_paths_of_tasks_are_relative_to_their_file(cli: Cli, server: EvaluationServer, folder: Path) -> None:
    evaluate(cli, "--against", "local-dir:teacher")

    [body] = server.bodies
    assert (body["model"], body["against"]) == ("shapes@best", f"local-dir:{folder}/teacher")
    assert body["key"]
    cars, pets, own = body["tasks"]
    assert cars == {"name": "cars", "kind": "zero_shot", "shards": f"{folder}/tasks/wds_cars"}
    assert (pets["train_shards"], pets["shards"]) == ("s3://b/train.tar", [f"{folder}/tasks/a.tar", "/b.tar"])
    assert (own["classes"], own["templates"]) == (f"{folder}/tasks/classes.txt", ["a {}."])
    assert "holdout" not in body


def test_json_and_the_file_are_the_api_s_object(cli: Cli, server: EvaluationServer, folder: Path) -> None:
    result = evaluate(cli, "--json", "--out", "numbers.json")

    assert json.loads(result.out) == server.document("succeeded")
    assert json.loads((folder / "numbers.json").read_text()) == server.document("succeeded")


def test_no_wait(cli: Cli, server: EvaluationServer) -> None:
    assert evaluate(cli, "--no-wait").out == "eval_1 shapes@1 queued\n"


def test_a_failed_evaluation_exits_with_1_and_its_reason(cli: Cli, server: EvaluationServer) -> None:
    server.states, server.message, server.warnings = ["failed"], "task cars has nothing to evaluate", ["odd"]

    result = evaluate(cli)

    assert (result.code, result.out) == (1, "eval_1 shapes@1 failed: task cars has nothing to evaluate\n")
    assert result.err == "warning: odd\n"


@pytest.mark.parametrize("out", ["nowhere/numbers.json", "tasks"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_sent(
    cli: Cli, server: EvaluationServer, out: str
) -> None:
    result = evaluate(cli, "--out", out)

    assert (result.code, result.err) == (2, f"error: --out {out}\n  name a file in an existing folder\n")
    assert server.bodies == []

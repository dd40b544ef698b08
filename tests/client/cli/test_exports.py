"""`models export` and `models exports`, and waiting for exports in the SDK."""

import json

import pytest
from tinyclip import AsyncClient

from tests.client.conftest import Cli, Serve
from tests.client.documents import page
from tests.client.servers import ExportServer


@pytest.fixture
def server(serve: Serve) -> ExportServer:
    server = ExportServer()
    serve(server.app())
    return server


def test_it_waits_and_prints_the_requested_exports(cli: Cli, server: ExportServer) -> None:
    result = cli("models", "export", "shapes@best", "--format", "onnx", "--format", "openvino", "--int8")

    assert (result.code, result.err) == (0, "")
    assert result.out == """\
| export        | of       | state     |  MB |             |
|---------------|----------|-----------|-----|-------------|
| onnx-int8     | shapes@1 | succeeded | 2.5 | all is well |
| openvino-int8 | shapes@1 | succeeded | 2.5 | all is well |
"""
    [body] = server.bodies
    assert (body["formats"], body["int8"], body["version"]) == (["onnx", "openvino"], True, "best")
    assert body["key"]


def test_a_reduced_vocabulary_is_reported_with_its_tokens(cli: Cli, server: ExportServer) -> None:
    options = ("--vocabulary", "reduced", "--embedding", "fp16")

    result = cli("models", "export", "shapes", "--format", "tinyclip", *options)

    [body] = server.bodies
    assert (body["vocabulary"], body["embedding"]) == ("reduced", "fp16")
    kept = "tinyclip-reduced-embedding-fp16: 7,906 of 49,408 tokens, 8.0 MB saved"
    assert result.out.splitlines()[-1] == f"{kept}; 91.9% of 934 evaluation captions use only tokens of the training data"


def test_json_is_the_api_s_object(cli: Cli, server: ExportServer) -> None:
    waited = json.loads(cli("models", "export", "shapes", "--format", "onnx", "--json").out)
    at_once = json.loads(cli("models", "export", "shapes", "--format", "onnx", "--json", "--no-wait").out)

    assert [(each["name"], each["state"]) for each in waited["items"]] == [("onnx", "succeeded")]
    assert at_once == page(server.document("queued"))
    assert [body["version"] for body in server.bodies] == ["latest"] * 2


def test_a_failed_export_exits_with_1(cli: Cli, server: ExportServer) -> None:
    server.states = ["failed"]

    assert cli("models", "export", "shapes", "--format", "onnx").code == 1


def test_an_unknown_format_is_refused_before_anything_is_sent(cli: Cli, server: ExportServer) -> None:
    assert cli("models", "export", "shapes", "--format", "tflite").code == 2
    assert server.bodies == []


def test_list_and_remove(cli: Cli, server: ExportServer) -> None:
    server.states = ["succeeded"]

    listed = cli("models", "exports", "shapes@1")
    removed = cli("models", "exports", "shapes@1", "--remove", "onnx")

    assert [line.split("|")[1].strip() for line in listed.out.splitlines()[2:]] == ["hf", "onnx"]
    assert (removed.code, server.removed) == (0, ["onnx"])


async def test_the_async_client_waits_for_the_named_exports(server: ExportServer) -> None:
    progress: list[list[str]] = []
    async with AsyncClient() as client:
        queued = await client.models.export("shapes@1", "onnx")
        done = await client.models.wait_for_exports(
            "shapes@1", ["onnx"], on_progress=lambda exports: progress.append([each.state for each in exports])
        )

    assert [(each.name, each.state) for each in queued.items] == [("onnx", "queued")]
    assert [(each.name, each.state) for each in done] == [("onnx", "succeeded")]
    assert progress == [["running"]]

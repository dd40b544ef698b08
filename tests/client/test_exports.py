"""`models export`, `models exports` and pulling an export; the same from Python."""

import json
from pathlib import Path
from typing import Any

import pytest
import tinyclip
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip import AsyncClient

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, problem
from tests.client.test_pull import FILES, Registry, client_of, contents

GRAPH = {"exports/onnx/image.onnx": b"graph" * 100, "exports/onnx/more/a.bin": b"x", "exports/onnx-int8/image.onnx": b"small"}


class Server:
    """Exports that are done at the second look."""

    def __init__(self) -> None:
        self.asked: list[JSON] = []
        self.removed: list[str] = []
        self.states = ["running", "succeeded"]
        self.refusal: JSON | None = None

    def app(self) -> Starlette:
        base = "/v1/models/shapes/versions/{version}/exports"
        return Starlette(routes=[
            Route(base, self.create, methods=["POST"]),
            Route(base, self.list),
            Route(base + "/{name}", self.delete, methods=["DELETE"]),
        ])

    def described(self, name: str, state: str) -> JSON:
        files = [{"path": "image.onnx", "bytes": 2_500_000, "sha256": "aa"}] if state == "succeeded" else []
        return {
            "name": name, "model": "shapes@1", "format": name.partition("-")[0], "int8": name.endswith("int8"), "state": state,
            "progress": 0.5, "message": "all is well" if files else "", "files": files, "check": None, "error": None,
            "ray_submission_id": "tc-export-e-a1", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z",
            "finished_at": None,
        }

    async def create(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append({**body, "version": request.path_params["version"], "key": request.headers.get("idempotency-key")})
        if self.refusal:
            return JSONResponse(self.refusal, 422)
        names = [f"{format}-int8" if body["int8"] else format for format in body["formats"]]
        self.names = names
        return JSONResponse({"items": [self.described(name, "queued") for name in names], "next_page_token": None}, 202)

    async def list(self, request: Request) -> Response:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        items = [self.described(name, state) for name in sorted([*self.names, "hf"])]
        return JSONResponse({"items": items, "next_page_token": None})

    async def delete(self, request: Request) -> Response:
        self.removed.append(request.path_params["name"])
        return JSONResponse(self.described(request.path_params["name"], "deleting"), 202)


@pytest.fixture
def server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    made = Server()
    serve(made.app())
    return made


def test_waits_and_shows_what_was_asked_for(cli: Cli, server: Server) -> None:
    ran = cli("models", "export", "shapes@best", "--format", "onnx", "--format", "openvino", "--int8")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == """\
| export        | of       | state     |  MB |             |
|---------------|----------|-----------|-----|-------------|
| onnx-int8     | shapes@1 | succeeded | 2.5 | all is well |
| openvino-int8 | shapes@1 | succeeded | 2.5 | all is well |
"""
    asked = server.asked[0]
    assert (asked["formats"], asked["int8"], asked["version"]) == (["onnx", "openvino"], True, "best")
    assert asked["key"]


def test_json_is_the_api_s_object(cli: Cli, server: Server) -> None:
    waited = json.loads(cli("models", "export", "shapes", "--format", "onnx", "--json").out)
    at_once = json.loads(cli("models", "export", "shapes", "--format", "onnx", "--json", "--no-wait").out)

    assert [(each["name"], each["state"]) for each in waited["items"]] == [("onnx", "succeeded")]
    assert at_once == {"items": [server.described("onnx", "queued")], "next_page_token": None}
    assert [asked["version"] for asked in server.asked] == ["latest"] * 2


def test_one_that_fails_exits_1(cli: Cli, server: Server) -> None:
    server.states = ["failed"]

    assert cli("models", "export", "shapes", "--format", "onnx").code == 1


def test_a_refusal_names_the_field(cli: Cli, server: Server) -> None:
    wrong = {"pointer": "/formats/0", "value": "hf", "message": "shapes@1 has no hf export; it has onnx, openvino"}
    server.refusal = problem(422, "…", errors=[wrong])

    ran = cli("models", "export", "shapes", "--format", "hf")

    assert (ran.code, ran.err) == (2, 'error: formats.0 = "hf"\n  shapes@1 has no hf export; it has onnx, openvino\n')


def test_a_format_that_nobody_knows_is_refused_before_anything_is_asked(cli: Cli, server: Server) -> None:
    assert cli("models", "export", "shapes", "--format", "tflite").code == 2
    assert server.asked == []


def test_lists_and_takes_away(cli: Cli, server: Server) -> None:
    server.names, server.states = ["onnx"], ["succeeded"]

    listed = cli("models", "exports", "shapes@1")
    removed = cli("models", "exports", "shapes@1", "--remove", "onnx")

    assert [line.split("|")[1].strip() for line in listed.out.splitlines()[2:]] == ["hf", "onnx"]
    assert (removed.code, server.removed) == (0, ["onnx"])


async def test_the_same_in_a_task(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    server, seen = Server(), []
    serve(server.app())
    async with AsyncClient() as client:
        asked = await client.models.export("shapes@1", "onnx")
        done = await client.models.wait_for_exports("shapes@1", ["onnx"], on_progress=seen.append)

    assert [(each.name, each.state) for each in asked.items] == [("onnx", "queued")]
    assert [(each.name, each.state) for each in done] == [("onnx", "succeeded")]
    assert [[each.state for each in look] for look in seen] == [["running"]]


class TestPull:
    def pull(self, dest: Path, **more: Any) -> Path:
        return client_of(Registry(FILES | GRAPH)).models.pull("shapes@1", dest, **more)

    def test_a_version_is_pulled_without_its_exports(self, tmp_path: Path) -> None:
        assert contents(self.pull(tmp_path / "student")) == FILES

    def test_what_was_pulled_before_there_were_exports_is_still_that_version(self, tmp_path: Path) -> None:
        client_of(Registry()).models.pull("shapes@1", tmp_path / "student")

        assert contents(self.pull(tmp_path / "student")) == FILES

    def test_an_export_is_pulled_alone(self, tmp_path: Path) -> None:
        where = self.pull(tmp_path / "graph", export="onnx")

        assert contents(where) == {"image.onnx": b"graph" * 100, "more/a.bin": b"x"}
        assert [entry.name for entry in tmp_path.iterdir()] == ["graph"]

    def test_an_export_that_is_not_there_says_which_are(self, tmp_path: Path) -> None:
        with pytest.raises(tinyclip.InputError, match="shapes@1 has no export hf: it has onnx, onnx-int8"):
            self.pull(tmp_path / "graph", export="hf")
        with pytest.raises(tinyclip.InputError, match="it has none; make one with models export"):
            client_of(Registry()).models.pull("shapes@1", tmp_path / "graph", export="hf")

    def test_a_version_and_an_export_of_it_do_not_share_a_place(self, tmp_path: Path) -> None:
        self.pull(tmp_path / "there", export="onnx")

        with pytest.raises(tinyclip.InputError, match="there exists and is not shapes@1: "):
            self.pull(tmp_path / "there")
        with pytest.raises(tinyclip.InputError, match="there exists and is not shapes@1 as onnx-int8: "):
            self.pull(tmp_path / "there", export="onnx-int8")

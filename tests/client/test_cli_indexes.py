"""Indexes at the shell."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON

TIMES = {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"}


class Server:
    """An index that is built, and changed."""

    def __init__(self) -> None:
        self.progress = [0.5, 1.0]
        self.asked: list[JSON] = []
        self.updates = 0
        self.rejected: list[JSON] = []

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/indexes/gallery", self.index, methods=["GET", "PUT"]),
            Route("/v1/indexes/gallery/items", self.change, methods=["POST"]),
            Route("/v1/indexes/gallery/items/{id:path}", self.change, methods=["DELETE"]),
        ])

    async def index(self, request: Request) -> Response:
        if request.method == "PUT":
            self.asked.append(await request.json())
        progress = self.progress.pop(0) if len(self.progress) > 1 else self.progress[0]
        state = "ready" if progress == 1.0 else "building"
        shown = {"name": "gallery", "model": "shapes@1", "state": state, "count": 300, "progress": progress, **TIMES}
        return JSONResponse(shown | {"rejected": self.rejected, "applied_updates": self.updates})

    async def change(self, request: Request) -> Response:
        assert request.headers["idempotency-key"]
        self.updates += 1
        self.asked.append(await request.json() if request.method == "POST" else request.path_params["id"])
        shown = {"name": "gallery", "model": "shapes@1", "state": "updating", "updates": self.updates, **TIMES}
        return JSONResponse(shown, 202)


@pytest.fixture
def server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    made = Server()
    serve(made.app())
    return made


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "square.png").write_bytes(b"\x00\x01\x02")
    monkeypatch.chdir(tmp_path)
    return "square.png"


def test_create_waits_until_it_is_built(cli: Cli, server: Server, picture: str, tmp_path: Path) -> None:
    ran = cli("indexes", "create", "gallery", "--model", "shapes@1", "--shards", "val/{0..3}.tar")

    assert (ran.code, ran.out) == (0, "gallery shapes@1 ready, 300 items\n")
    assert server.asked[0]["source"]["shards"] == f"{tmp_path}/val/{{0..3}}.tar"


def test_json_is_the_built_index(cli: Cli, server: Server) -> None:
    ran = cli("indexes", "create", "gallery", "--model", "shapes@1", "--shards", "s3://b/x.tar", "--json")

    assert json.loads(ran.out)["state"] == "ready"


def test_create_an_empty_one_of_a_kind(cli: Cli, server: Server) -> None:
    assert cli("indexes", "create", "gallery", "--model", "shapes@1", "--kind", "hnsw").code == 0

    assert server.asked == [{"model": "shapes@1", "source": None, "kind": "hnsw", "store": "files"}]


def test_create_one_in_a_database(cli: Cli, server: Server) -> None:
    assert cli("indexes", "create", "gallery", "--model", "shapes@1", "--store", "pgvector").code == 0

    assert server.asked[0]["store"] == "pgvector"


def test_add_pictures_and_texts(cli: Cli, server: Server, picture: str) -> None:
    ran = cli("indexes", "add", "gallery", picture, "--text", "a cat", "--metadata", '{"year": 2020}')

    assert (ran.code, ran.out) == (0, "gallery shapes@1 ready, 300 items\n")
    assert server.asked == [{"items": [
        {"id": picture, "image": "AAEC", "metadata": {"file": picture, "year": 2020}},
        {"id": "a cat", "text": "a cat", "metadata": {"text": "a cat", "year": 2020}},
    ]}]  # fmt: skip


def test_many_pictures_go_in_several_requests(
    cli: Cli, server: Server, picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyclip.cli.commands.indexes.BODY_BYTES", 8)

    assert cli("indexes", "add", "gallery", picture, picture, picture).code == 0

    assert [len(body["items"]) for body in server.asked] == [2, 1]


def test_an_item_that_was_rejected_is_told(cli: Cli, server: Server, picture: str) -> None:
    told = {"update": 1, "id": picture, "reason": "the image is cut off"}
    server.rejected = [{"update": 0, "id": "old", "reason": "x"}, told]

    ran = cli("indexes", "add", "gallery", picture)

    assert ran.code == 1
    assert ran.err == f"not added: {picture}: the image is cut off\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name at least one FILE or --text"),
        (["--text", "a", "--text", "b", "--id", "x"], "--id names one item"),
        (["--text", "a", "--metadata", "[1]"], "[1] is not a JSON object"),
        (["--text", "a", "--metadata", "{"], "is not JSON"),
    ],
)

def test_add_says_what_is_wrong(cli: Cli, server: Server, arguments: list[str], says: str) -> None:
    ran = cli("indexes", "add", "gallery", *arguments)

    assert ran.code == 2
    assert says in " ".join(ran.err.replace("│", "").split())
    assert server.asked == []


def test_remove(cli: Cli, server: Server) -> None:
    assert cli("indexes", "remove", "gallery", "a/b c.png", "d").code == 0

    assert server.asked == ["a/b c.png", "d"]

"""`models …` other than evaluations and exports."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import FILES, WEIGHTS, version
from tests.client.servers import DeploymentServer


@pytest.fixture
def server(serve: Serve) -> DeploymentServer:
    server = DeploymentServer("ready")
    serve(server.app())
    return server


def test_get_prints_the_properties_of_a_version(cli: Cli, server: DeploymentServer) -> None:
    out = cli("models", "get", "shapes@best").out

    assert "| params                        | 3.8M, of which 100k token embedding " in out
    assert "| text params (token embedding) | 1.3M (100k) " in out
    assert "| weights                       | 0.0 MB " in out
    assert "| val                           | top1 0.61 " in out


def test_compare_prints_the_teacher_above_its_students(cli: Cli, server: DeploymentServer) -> None:
    assert cli("models", "compare", "shapes@1", "shapes@2").out == """\
| model            | image params | text params (token embedding) | MACs | val top-1 / top-5 | kept top-1 |
|------------------|--------------|-------------------------------|------|-------------------|------------|
| teacher ViT-B-32 |            – |                             – |    – |       65.0 / 92.0 |          – |
| shapes@1         |         2.5M |                   1.3M (100k) | 310M |       61.0 / 90.0 |      93.8% |
| shapes@2         |         2.5M |                   1.3M (100k) | 310M |       61.0 / 90.0 |      93.8% |
"""


def test_pull_prints_the_folder(cli: Cli, server: DeploymentServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    result = cli("models", "pull", "shapes")

    assert (result.code, result.out) == (0, f"shapes@1 is in {tmp_path}/shapes-1\n")
    assert (tmp_path / "shapes-1" / WEIGHTS).read_bytes() == FILES[WEIGHTS]


def test_an_alias_needs_a_version_or_remove(cli: Cli) -> None:
    assert cli("models", "alias", "shapes", "best").code == 2


class TestImport:
    IMPORTED = version(lineage={"import": {"warnings": ["image tower: 3.0M parameters"]}})

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "TinyCLIP.pt").write_bytes(bytes(2_304_000))
        return tmp_path / "TinyCLIP.pt"

    @pytest.fixture
    def requests(self, serve: Serve) -> list[dict[str, str]]:
        """The queries or bodies received."""
        received: list[dict[str, str]] = []

        async def take(request: Request) -> JSONResponse:
            body, query = await request.body(), dict(request.query_params)
            received.append(query if request.headers["content-type"] != "application/json" else json.loads(body))
            return JSONResponse(self.IMPORTED, 201)

        serve(Starlette(routes=[Route("/v1/models/import", take, methods=["POST"])]))
        return received

    def test_a_file_is_sent_and_its_version_printed(self, cli: Cli, requests: list[dict[str, str]], file: Path) -> None:
        result = cli("models", "import", str(file), "--preset", "TinyCLIP-ViT-40M-32-Text-19M", "--gelu", "--alias", "best")

        assert result.code == 0, result.err
        assert requests == [
            {"file": "TinyCLIP.pt", "preset": "TinyCLIP-ViT-40M-32-Text-19M", "quick_gelu": "false", "alias": "best"}
        ]
        assert "shapes@1" in result.out
        assert result.err.splitlines()[-2:] == [
            "TinyCLIP.pt: 2.3 of 2.3 MB sent; being imported", "note: image tower: 3.0M parameters",
        ]

    def test_json_is_the_api_s_object(self, cli: Cli, requests: list[dict[str, str]], file: Path) -> None:
        assert json.loads(cli("models", "import", str(file), "--json").out) == self.IMPORTED

    def test_of_a_source_only_the_name_is_sent(self, cli: Cli, requests: list[dict[str, str]]) -> None:
        assert cli("models", "import", "/shared/clip.pt", "--on-server").code == 0
        assert cli("models", "import", "s3://models/clip.pt").code == 0

        assert [body["source"] for body in requests] == ["/shared/clip.pt", "s3://models/clip.pt"]

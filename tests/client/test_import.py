"""A model's file or directory arrives as it is, with what is said of it; the answer is the new version."""

import io
import json
import tarfile
from pathlib import Path

import httpx
import pytest
import tinyclip
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tinyclip import AsyncClient, Client, Retries

from tests.client.conftest import Cli, Serve
from tests.client.test_pull import FILES, version

WEIGHTS = bytes(range(256)) * 9000
"""More than two pieces."""


class Importer:
    """Takes imports; its first answers can be failures."""

    def __init__(self, *, failures: int = 0) -> None:
        self.answer = {**version(FILES), "lineage": {"import": {"warnings": ["image tower: 3.0M parameters"]}}}
        self.requests: list[httpx.Request] = []
        self._failures = failures

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._answer(request)

    async def handle_async(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if len(self.requests) <= self._failures:
            return httpx.Response(503, json={"title": "no", "status": 503, "code": "unavailable", "retryable": True})
        return httpx.Response(201, json=self.answer)


def client_of(importer: Importer) -> Client:
    return Client("http://server", retries=Retries(first_wait=0.0, attempts=3), transport=httpx.MockTransport(importer.handle))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "TinyCLIP.pt").write_bytes(WEIGHTS)
    return tmp_path / "TinyCLIP.pt"


def test_a_file_is_sent_as_it_is_with_what_is_said_of_it(file: Path) -> None:
    importer = Importer()
    told: list[tuple[int, int]] = []

    made = client_of(importer).models.import_file(
        file, name="tiny", preset="ViT-B-32", quick_gelu=True, on_progress=lambda sent, total: told.append((sent, total))
    )

    (request,) = importer.requests
    assert (made.name, made.version) == ("shapes", 1)
    assert request.url.path == "/v1/models/import"
    assert dict(request.url.params) == {"file": "TinyCLIP.pt", "name": "tiny", "preset": "ViT-B-32", "quick_gelu": "true"}
    assert (request.headers["content-type"], request.headers["content-length"]) == ("application/octet-stream", str(len(WEIGHTS)))
    assert request.content == WEIGHTS
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert len(told) == 3


async def test_in_a_task_the_same_is_sent(file: Path) -> None:
    importer = Importer()
    async with AsyncClient("http://server", transport=httpx.MockTransport(importer.handle_async)) as client:
        await client.models.import_file(file, origin="ViT-B-32@openai")

    (request,) = importer.requests
    assert dict(request.url.params) == {"file": "TinyCLIP.pt", "origin": "ViT-B-32@openai"}
    assert request.content == WEIGHTS


def test_another_try_sends_all_of_it_again_under_the_same_key(file: Path) -> None:
    importer = Importer(failures=1)

    client_of(importer).models.import_file(file)

    first, second = importer.requests
    assert first.content == second.content == WEIGHTS
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_of_a_directory_what_matters_is_sent_as_a_tar(tmp_path: Path) -> None:
    folder = tmp_path / "my-clip"
    folder.mkdir()
    sent = {"open_clip_config.json": b'{"model_cfg": {}}', "open_clip_model.safetensors": WEIGHTS}
    for name, content in {**sent, "open_clip_pytorch_model.bin": b"again", "notes.txt": b"private", "README.md": b"#"}.items():
        (folder / name).write_bytes(content)
    importer = Importer()

    client_of(importer).models.import_file(folder)

    (request,) = importer.requests
    assert (request.headers["content-type"], request.url.params["file"]) == ("application/x-tar", "my-clip")
    assert len(request.content) == int(request.headers["content-length"])
    with tarfile.open(fileobj=io.BytesIO(request.content)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == sent  # type: ignore[union-attr]


def test_a_source_is_only_named() -> None:
    importer = Importer()

    client_of(importer).models.import_source("s3://models/clip.pt", preset="ViT-B-32", quick_gelu=False)

    body = json.loads(importer.requests[0].content)
    assert body == {"source": "s3://models/clip.pt", "preset": "ViT-B-32", "quick_gelu": False}


def test_what_is_not_there_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for path, hint in ((tmp_path / "ghost.pt", "--on-server"), (tmp_path / "empty", "open_clip_model.safetensors")):
        with pytest.raises(tinyclip.InputError, match=hint):
            client_of(Importer()).models.import_file(path)


class TestCommand:
    """`tinyclip-client models import`."""

    @pytest.fixture
    def asked(self, serve: Serve) -> list[dict[str, str]]:
        """What the server was asked; it refuses what is called `bad`."""
        asked: list[dict[str, str]] = []

        async def take(request: Request) -> JSONResponse:
            body = await request.body()
            query = dict(request.query_params)
            asked.append(query if request.headers["content-type"] != "application/json" else json.loads(body))
            if query.get("name") == "bad":
                error = {"pointer": "/quick_gelu", "value": None, "message": "is needed: say which"}
                problem = {"title": "no", "status": 422, "code": "import_refused", "detail": "no", "errors": [error]}
                return JSONResponse(problem, 422)
            return JSONResponse(Importer().answer, 201)

        serve(Starlette(routes=[Route("/v1/models/import", take, methods=["POST"])]))
        return asked

    def test_sends_and_shows(self, cli: Cli, asked: list[dict[str, str]], file: Path) -> None:
        ran = cli("models", "import", str(file), "--preset", "TinyCLIP-ViT-40M-32-Text-19M", "--gelu", "--alias", "best")

        assert ran.code == 0, ran.err
        assert asked == [
            {"file": "TinyCLIP.pt", "preset": "TinyCLIP-ViT-40M-32-Text-19M", "quick_gelu": "false", "alias": "best"}
        ]
        assert "shapes@1" in ran.out
        assert ran.err.splitlines()[-2:] == [
            "TinyCLIP.pt: 2.3 of 2.3 MB sent; being imported", "note: image tower: 3.0M parameters",
        ]

    def test_prints_the_apis_object_alone(self, cli: Cli, asked: list[dict[str, str]], file: Path) -> None:
        ran = cli("models", "import", str(file), "--json")

        assert json.loads(ran.out) == Importer().answer

    def test_names_what_the_server_reads_itself(self, cli: Cli, asked: list[dict[str, str]]) -> None:
        assert cli("models", "import", "/shared/clip.pt", "--on-server").code == 0
        assert cli("models", "import", "s3://models/clip.pt").code == 0

        assert [body["source"] for body in asked] == ["/shared/clip.pt", "s3://models/clip.pt"]

    def test_says_what_is_wrong_in_two_lines(self, cli: Cli, asked: list[dict[str, str]], file: Path) -> None:
        ran = cli("models", "import", str(file), "--name", "bad")

        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines()[-2:] == ["error: quick_gelu", "  is needed: say which"]

"""Models, deployments and questions at the shell."""

import hashlib
import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.conftest import Cli, Serve
from tests.client.documents import JSON, LAYOUT, page

TIMES = {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"}
WEIGHTS = b"weights"
VERSION: JSON = {
    "name": "shapes", "version": 1, "aliases": ["best"],
    "params": {"image": 2_500_000, "text": 1_300_000, "text_without_embedding": 1_200_000},
    "macs": 310_000_000, "embed_dim": 64, "image_size": 32, "context_length": 16, "layout": LAYOUT, "job": "job_1",
    "evaluation": {"val": {"student": {"top1": 0.61}, "teacher": {"top1": 0.65}}},
    "files": [{"path": "open_clip_model.safetensors", "bytes": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest()}],
    "created_at": "2026-01-02T03:04:05Z",
}


class Server:
    """A deployment that becomes ready, and answers to questions."""

    def __init__(self) -> None:
        self.states = ["deploying", "ready"]
        self.message = ""
        self.asked: list[JSON] = []
        self.url = ""
        self.refusal: JSON | None = None

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/deployments/shapes", self.deployment, methods=["GET", "PUT", "DELETE"]),
            Route("/v1/deployments", self.deployments),
            Route("/v1/compare", self.comparison),
            Route("/v1/models/shapes/versions/{version}", self.version),
            Route("/v1/models/shapes/versions/1/files/{path}", self.file),
            Route("/shapes/label-sets", self.label_sets),
            Route("/shapes/label-sets/{name}", self.label_set, methods=["GET", "PUT", "DELETE"]),
            Route("/shapes/{question}", self.question, methods=["POST"]),
        ])

    def described(self, state: str) -> JSON:
        return {
            "name": "shapes", "model": "shapes@1", "state": state, "endpoint": f"{self.url}/shapes",
            "replicas": {"min": 1, "max": 1}, "engine": "torch", "message": self.message, **TIMES,
        }

    async def deployment(self, request: Request) -> Response:
        if request.method == "PUT":
            self.asked.append(await request.json())
            return JSONResponse(self.described("deploying"), 202)
        if request.method == "DELETE":
            return JSONResponse(self.described("deleting"), 202)
        return JSONResponse(self.described(self.states.pop(0) if len(self.states) > 1 else self.states[0]))

    async def deployments(self, request: Request) -> Response:
        return JSONResponse(page(self.described("ready")))

    async def version(self, request: Request) -> Response:
        return JSONResponse(VERSION)

    async def comparison(self, request: Request) -> Response:
        assert request.query_params["models"] == "shapes@1,shapes@2"
        student, teacher = {"val": {"top1": 0.61, "top5": 0.9}}, {"val": {"top1": 0.65, "top5": 0.92}}
        one = VERSION | {"evaluation": student, "teacher": "ViT-B-32", "teacher_evaluation": teacher}
        return JSONResponse({"models": [one, one | {"version": 2}]})

    async def file(self, request: Request) -> Response:
        return Response(WEIGHTS)

    async def label_sets(self, request: Request) -> Response:
        return JSONResponse(page({"name": "colours", "labels": 2, "templates": 1}))

    async def label_set(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.asked.append({"deleted": request.path_params["name"]})
            return Response(status_code=204)
        if request.method == "PUT":
            self.asked.append(await request.json())
        return JSONResponse({"name": "colours", "labels": ["red", "blue"], "templates": ["{}"]})

    async def question(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.refusal is not None:
            return JSONResponse(self.refusal, 422)
        match request.path_params["question"]:
            case "zero-shot":
                scores = [{"label": "a red square", "score": 0.912}, {"label": "a blue disc", "score": 0.088}]
                results, errors = [scores] * len(body["images"]), []
                if body.get("on_error") == "skip":
                    results[-1], errors = None, [{"pointer": "/images/1", "value": "AAEC", "message": "is empty"}]
                return JSONResponse({"results": results, "model": "shapes@1", "errors": errors})
            case "embeddings" if body["on_error"] == "skip":
                data = [{"index": 0, "embedding": None}, {"index": 1, "embedding": [0.6, -0.8]}]
                errors = [{"pointer": "/input/0", "value": "AAEC", "message": "is empty"}]
                return JSONResponse({"data": data, "model": "shapes@1", "errors": errors})
            case "embeddings":
                return JSONResponse({"data": [{"index": 0, "embedding": [0.6, -0.8] * 4}], "model": "shapes@1"})
        hits = [
            {"id": "0001", "score": 0.31, "metadata": {"caption": "a red square", "size": 3}},
            {"id": "0002", "score": 0.2, "metadata": {}},
        ]
        return JSONResponse({"hits": hits, "model": "shapes@1"})


@pytest.fixture
def server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    made = Server()
    made.url = serve(made.app()).url
    return made


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "square.png").write_bytes(b"\x00\x01\x02")
    monkeypatch.chdir(tmp_path)
    return "square.png"


class TestDeployments:
    def test_create_waits_until_it_is_ready(self, cli: Cli, server: Server) -> None:
        ran = cli("deployments", "create", "shapes", "--model", "shapes@best", "--max-replicas", "2")

        assert (ran.code, ran.out) == (0, f"shapes shapes@1 ready at {server.url}/shapes\n")
        [asked] = server.asked
        assert (asked["model"], asked["canary"], asked["models"]) == ("shapes@best", None, [])
        assert (asked["replicas"], asked["engine"]) == ({"min": 1, "max": 2}, "auto")

    def test_create_with_a_canary_and_more_models(self, cli: Cli, server: Server) -> None:
        canary = ("--canary", "shapes@2", "--canary-weight", "0.2")
        more = ("--also", "a@1", "--also", "b@1", "--resident", "1")
        cli("deployments", "create", "shapes", "--model", "shapes@1", *canary, *more)

        [asked] = server.asked
        assert asked["canary"] == {"model": "shapes@2", "weight": 0.2}
        assert (asked["models"], asked["resident"]) == (["a@1", "b@1"], 1)

    def test_create_does_not_wait_if_told(self, cli: Cli, server: Server) -> None:
        assert cli("deployments", "create", "shapes", "--model", "shapes", "--no-wait").out == "shapes shapes@1 deploying\n"

    def test_one_that_does_not_come_up_says_why_and_exits_1(self, cli: Cli, server: Server) -> None:
        server.states, server.message = ["deploying", "unhealthy"], "no memory"

        ran = cli("deployments", "create", "shapes", "--model", "shapes")

        assert (ran.code, ran.out) == (1, "shapes shapes@1 unhealthy: no memory\n")

    def test_list_and_delete(self, cli: Cli, server: Server) -> None:
        assert "| shapes | shapes@1 | ready | 1-1      |" in cli("deployments", "list").out
        assert cli("deployments", "delete", "shapes").out == "shapes shapes@1 deleting\n"


class TestModels:
    def test_get_shows_what_it_is(self, cli: Cli, server: Server) -> None:
        out = cli("models", "get", "shapes@best").out

        assert "| text params (without embedding) | 1.2M " in out
        assert "| val                             | top1 0.61 " in out

    def test_compare_puts_the_teacher_above_its_students(self, cli: Cli, server: Server) -> None:
        ran = cli("models", "compare", "shapes@1", "shapes@2")

        assert ran.out == """\
| model            | image params | text params (without embedding) | MACs | val top-1 / top-5 |
|------------------|--------------|---------------------------------|------|-------------------|
| teacher ViT-B-32 |            – |                               – |    – |       65.0 / 92.0 |
| shapes@1         |         2.5M |                            1.2M | 310M |       61.0 / 90.0 |
| shapes@2         |         2.5M |                            1.2M | 310M |       61.0 / 90.0 |
"""

    def test_pull_says_where_it_is(self, cli: Cli, server: Server, picture: str, tmp_path: Path) -> None:
        ran = cli("models", "pull", "shapes")

        assert (ran.code, ran.out) == (0, f"shapes@1 is in {tmp_path}/shapes-1\n")
        assert (tmp_path / "shapes-1" / "open_clip_model.safetensors").read_bytes() == WEIGHTS

    def test_an_alias_needs_a_version_or_its_removal(self, cli: Cli) -> None:
        assert cli("models", "alias", "shapes", "best").code == 2


class TestLabelSets:
    @pytest.fixture(autouse=True)
    def _ready(self, server: Server) -> None:
        server.states = ["ready"]

    def test_put(self, cli: Cli, server: Server) -> None:
        ran = cli("label-sets", "put", "colours", "--labels", "red,blue", "--template", "a {} thing", "-d", "shapes")

        assert (ran.code, ran.out) == (0, "colours: 2 labels, 1 templates\n")
        assert server.asked == [{"labels": ["red", "blue"], "templates": ["a {} thing"]}]

    def test_get_list_and_delete(self, cli: Cli, server: Server) -> None:
        assert cli("label-sets", "get", "colours", "-d", "shapes").out == "red\nblue\n"
        assert "| colours |      2 |         1 |" in cli("label-sets", "list", "-d", "shapes").out
        assert cli("label-sets", "delete", "colours", "-d", "shapes").out == "colours deleted\n"
        assert server.asked == [{"deleted": "colours"}]


class TestQuestions:
    @pytest.fixture(autouse=True)
    def _ready(self, server: Server) -> None:
        server.states = ["ready"]

    def test_classify_is_a_table(self, cli: Cli, server: Server, picture: str) -> None:
        ran = cli("classify", picture, "--labels", "a red square, a blue disc", "--deployment", "shapes")

        assert server.asked == [{"images": ["AAEC"], "labels": ["a red square", "a blue disc"], "top_k": 5}]
        assert ran.out == """\
| image      | label        | score |
|------------|--------------|-------|
| square.png | a red square | 0.912 |
|            | a blue disc  | 0.088 |
"""

    def test_labels_may_be_a_file(self, cli: Cli, server: Server, picture: str, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_text("red, or so\n\nblue\n")

        cli("classify", picture, "--labels", "@labels.txt", "-d", "shapes")

        assert server.asked[0]["labels"] == ["red, or so", "blue"]

    def test_json_is_the_answer_as_it_came(self, cli: Cli, server: Server, picture: str) -> None:
        assert json.loads(cli("classify", picture, "--labels", "a,b", "-d", "shapes", "--json").out)["model"] == "shapes@1"

    def test_labels_may_be_a_registered_set(self, cli: Cli, server: Server, picture: str) -> None:
        cli("classify", picture, "--label-set", "colours", "-d", "shapes")

        assert server.asked == [{"images": ["AAEC"], "label_set": "colours", "top_k": 5}]

    @pytest.mark.parametrize("options", [(), ("--labels", "a", "--label-set", "b")])
    def test_labels_come_from_one_place(self, cli: Cli, picture: str, options: tuple[str, ...]) -> None:
        assert cli("classify", picture, *options, "-d", "shapes").code == 2

    def test_a_skipped_image_has_its_reason(self, cli: Cli, server: Server, picture: str) -> None:
        ran = cli("classify", picture, picture, "--labels", "a,b", "-d", "shapes", "--on-error", "skip")

        assert server.asked[0]["on_error"] == "skip"
        assert "| square.png | is empty     |     – |" in ran.out

    def test_embed_shows_the_beginning(self, cli: Cli, server: Server) -> None:
        out = cli("embed", "a red square", "-d", "shapes").out

        assert out == "a red square: +0.6000 -0.8000 +0.6000 -0.8000 +0.6000 -0.8000 … (8 numbers; --json prints all)\n"

    def test_embed_may_skip_bad_images(self, cli: Cli, server: Server, picture: str) -> None:
        ran = cli("embed", "--image", picture, "--image", picture, "-d", "shapes", "--on-error", "skip")

        assert ran.out == "square.png: skipped, is empty\nsquare.png: +0.6000 -0.8000\n"

    def test_texts_cannot_be_skipped(self, cli: Cli) -> None:
        ran = cli("embed", "a", "-d", "shapes", "--on-error", "skip")

        assert ran.code == 2
        assert "is for images" in ran.err

    def test_search_shows_the_best_hits(self, cli: Cli, server: Server) -> None:
        ran = cli("search", "something red", "-d", "shapes", "-i", "gallery", "--top-k", "2")

        assert server.asked == [{"index": "gallery", "text": "something red", "top_k": 2}]
        assert ran.out == """\
| # | score | id   | metadata                       |
|---|-------|------|--------------------------------|
| 1 | 0.310 | 0001 | caption: a red square, size: 3 |
| 2 | 0.200 | 0002 |                                |
"""

    def test_search_by_image(self, cli: Cli, server: Server, picture: str) -> None:
        cli("search", "--image", picture, "-d", "shapes", "-i", "gallery")

        assert server.asked == [{"index": "gallery", "image": "AAEC", "top_k": 10}]

    def test_search_with_a_filter(self, cli: Cli, server: Server) -> None:
        cli("search", "red", "-d", "shapes", "-i", "gallery", "--filter", '{"year": {"gte": 2000}}')
        wrong = cli("search", "red", "-d", "shapes", "-i", "gallery", "--filter", "year=2000")

        assert server.asked == [{"index": "gallery", "text": "red", "top_k": 10, "filter": {"year": {"gte": 2000}}}]
        assert (wrong.code, "is not JSON" in " ".join(wrong.err.split())) == (2, True)

    def test_a_search_needs_one_of_text_and_image(self, cli: Cli) -> None:
        assert cli("search", "-d", "shapes", "-i", "gallery").code == 2

    def test_a_file_that_is_no_image_is_named(self, cli: Cli, server: Server, picture: str) -> None:
        error = {"pointer": "/images/0", "value": "AAEC", "message": "not an image (3 bytes); send PNG, JPEG or WebP"}
        server.refusal = {"title": "x", "status": 422, "code": "invalid_image", "detail": "", "errors": [error]}

        ran = cli("classify", picture, "--labels", "a,b", "-d", "shapes")

        assert (ran.code, ran.err) == (2, "error: image square.png\n  not an image (3 bytes); send PNG, JPEG or WebP\n")

    def test_a_deployment_that_is_not_ready_says_so(self, cli: Cli, server: Server, picture: str) -> None:
        server.states, server.message = ["deploying"], "loading weights"

        ran = cli("classify", picture, "--labels", "a,b", "-d", "shapes")

        assert (ran.code, ran.err) == (
            4,
            "error: deployment shapes is deploying, not ready (loading weights)\n"
            "  wait until `tinyclip-client deployments get shapes` says ready\n",
        )

"""`classify`, `embed` and `search`."""

import json
from pathlib import Path

import pytest

from tests.client.conftest import Cli, Serve
from tests.client.documents import problem
from tests.client.servers import DeploymentServer


@pytest.fixture(autouse=True)
def server(serve: Serve) -> DeploymentServer:
    server = DeploymentServer("ready")
    server.url = serve(server.app()).url
    return server


class TestClassify:
    def test_a_table_of_labels(self, cli: Cli, server: DeploymentServer, image_file: str) -> None:
        result = cli("classify", image_file, "--labels", "a red square, a blue disc", "--deployment", "shapes")

        assert server.bodies == [{"images": ["AAEC"], "labels": ["a red square", "a blue disc"], "top_k": 5}]
        assert result.out == """\
| image      | label        | score |
|------------|--------------|-------|
| square.png | a red square | 0.912 |
|            | a blue disc  | 0.088 |
"""

    def test_json_is_the_response_as_it_came(self, cli: Cli, image_file: str) -> None:
        assert json.loads(cli("classify", image_file, "--labels", "a,b", "-d", "shapes", "--json").out)["model"] == "shapes@1"

    def test_labels_may_be_a_file_or_a_label_set(
        self, cli: Cli, server: DeploymentServer, image_file: str, tmp_path: Path
    ) -> None:
        (tmp_path / "labels.txt").write_text("red, or so\n\nblue\n")

        cli("classify", image_file, "--labels", "@labels.txt", "-d", "shapes")
        cli("classify", image_file, "--label-set", "colours", "-d", "shapes")

        assert server.bodies == [
            {"images": ["AAEC"], "labels": ["red, or so", "blue"], "top_k": 5},
            {"images": ["AAEC"], "label_set": "colours", "top_k": 5},
        ]

    @pytest.mark.parametrize("options", [(), ("--labels", "a", "--label-set", "b")])
    def test_exactly_one_of_labels_and_label_set_is_needed(self, cli: Cli, image_file: str, options: tuple[str, ...]) -> None:
        assert cli("classify", image_file, *options, "-d", "shapes").code == 2

    def test_a_skipped_image_has_its_reason(self, cli: Cli, server: DeploymentServer, image_file: str) -> None:
        result = cli("classify", image_file, image_file, "--labels", "a,b", "-d", "shapes", "--on-error", "skip")

        assert server.bodies[0]["on_error"] == "skip"
        assert "| square.png | is empty     |     – |" in result.out

    def test_an_invalid_image_is_named(self, cli: Cli, server: DeploymentServer, image_file: str) -> None:
        error = {"pointer": "/images/0", "value": "AAEC", "message": "not an image (3 bytes); send PNG, JPEG or WebP"}
        server.refusal = problem(422, "", code="invalid_image", errors=[error])

        result = cli("classify", image_file, "--labels", "a,b", "-d", "shapes")

        assert (result.code, result.err) == (2, "error: image square.png\n  not an image (3 bytes); send PNG, JPEG or WebP\n")

    def test_a_deployment_that_is_not_ready(self, cli: Cli, server: DeploymentServer, image_file: str) -> None:
        server.states, server.message = ["deploying"], "loading weights"

        result = cli("classify", image_file, "--labels", "a,b", "-d", "shapes")

        assert (result.code, result.err) == (
            4,
            "error: deployment shapes is deploying, not ready (loading weights)\n"
            "  wait until `tinyclip-client deployments get shapes` reports ready\n",
        )


class TestEmbed:
    def test_the_first_numbers_are_printed(self, cli: Cli) -> None:
        out = cli("embed", "a red square", "-d", "shapes").out

        assert out == "a red square: +0.6000 -0.8000 +0.6000 -0.8000 +0.6000 -0.8000 … (8 numbers; --json prints all)\n"

    def test_invalid_images_may_be_skipped(self, cli: Cli, image_file: str) -> None:
        result = cli("embed", "--image", image_file, "--image", image_file, "-d", "shapes", "--on-error", "skip")

        assert result.out == "square.png: skipped, is empty\nsquare.png: +0.6000 -0.8000\n"

    def test_texts_cannot_be_skipped(self, cli: Cli) -> None:
        result = cli("embed", "a", "-d", "shapes", "--on-error", "skip")

        assert (result.code, "is for images" in result.err) == (2, True)


class TestSearch:
    def test_a_table_of_hits(self, cli: Cli, server: DeploymentServer) -> None:
        result = cli("search", "something red", "-d", "shapes", "-i", "gallery", "--top-k", "2")

        assert server.bodies == [{"index": "gallery", "text": "something red", "top_k": 2}]
        assert result.out == """\
| # | score | id   | caption      |
|---|-------|------|--------------|
| 1 | 0.310 | 0001 | a red square |
| 2 | 0.200 | 0002 |              |
"""

    def test_all_metadata(self, cli: Cli) -> None:
        result = cli("search", "something red", "-d", "shapes", "-i", "gallery", "--long")

        assert result.out == "1. 0.310 0001\n   caption: a red square\n   size: 3\n2. 0.200 0002\n"

    def test_items_like_one(self, cli: Cli, server: DeploymentServer) -> None:
        cli("search", "--like", "a/1", "-d", "shapes", "-i", "gallery")

        assert server.bodies == [{"index": "gallery", "item": "a/1", "top_k": 10}]

    def test_a_page_of_pictures(self, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        opened: list[str] = []
        monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        result = cli("search", "<b>red", "-d", "shapes", "-i", "gallery", "--open")
        as_json = cli("search", "red", "-d", "shapes", "-i", "gallery", "--open", "--json")

        path = Path(result.out.splitlines()[-1])
        page = path.read_text()
        assert opened[0] == path.as_uri()
        assert path.stat().st_mode & 0o077 == 0
        assert 'src="data:image/jpeg;base64,/9j/' in page
        assert "no picture: it was added without an image" in page
        assert "<title>gallery: &lt;b&gt;red</title>" in page
        assert (json.loads(as_json.out)["hits"][0]["id"], ".html" in as_json.err) == ("0001", True)

    def test_by_image_or_with_a_filter(self, cli: Cli, server: DeploymentServer, image_file: str) -> None:
        cli("search", "--image", image_file, "-d", "shapes", "-i", "gallery")
        cli("search", "red", "-d", "shapes", "-i", "gallery", "--filter", '{"year": {"gte": 2000}}')

        assert server.bodies == [
            {"index": "gallery", "image": "AAEC", "top_k": 10},
            {"index": "gallery", "text": "red", "top_k": 10, "filter": {"year": {"gte": 2000}}},
        ]

    def test_invalid_arguments_are_refused(self, cli: Cli) -> None:
        invalid = cli("search", "red", "-d", "shapes", "-i", "gallery", "--filter", "year=2000")

        assert (invalid.code, "is not JSON" in " ".join(invalid.err.split())) == (2, True)
        assert cli("search", "-d", "shapes", "-i", "gallery").code == 2

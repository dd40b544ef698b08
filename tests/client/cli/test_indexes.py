"""`indexes …`."""

import json
from pathlib import Path

import pytest

from tests.client.conftest import Cli, Serve
from tests.client.servers import IndexServer


@pytest.fixture
def server(serve: Serve) -> IndexServer:
    server = IndexServer()
    serve(server.app())
    return server


class TestCreate:
    def test_codes_and_a_nested_size_are_requested_and_their_cost_is_shown(self, cli: Cli, server: IndexServer) -> None:
        server.measured = {"bytes": 2_500_000, "search_ms": 0.25, "recall": 0.995}

        created = cli("indexes", "create", "gallery", "--model", "shapes@1", "--codes", "binary", "--dimensions", "64")

        [body] = server.bodies
        assert (body["codes"], body["dimensions"]) == ("binary", 64)
        assert "2.5 MB, 0.25 ms a search, recall 99.5%" in created.out

    def test_it_waits_until_the_index_is_built(self, cli: Cli, server: IndexServer, image_file: str, tmp_path: Path) -> None:
        result = cli("indexes", "create", "gallery", "--model", "shapes@1", "--shards", "val/{0..3}.tar")

        assert (result.code, result.out) == (0, "gallery shapes@1 ready, 300 items\n")
        assert server.bodies[0]["source"]["shards"] == f"{tmp_path}/val/{{0..3}}.tar"

    def test_json_is_the_built_index(self, cli: Cli, server: IndexServer) -> None:
        result = cli("indexes", "create", "gallery", "--model", "shapes@1", "--shards", "s3://b/x.tar", "--json")

        assert json.loads(result.out)["state"] == "ready"

    def test_an_empty_index_of_a_kind_in_a_database(self, cli: Cli, server: IndexServer) -> None:
        options = ("--kind", "hnsw", "--store", "pgvector")

        assert cli("indexes", "create", "gallery", "--model", "shapes@1").code == 0
        assert cli("indexes", "create", "gallery", "--model", "shapes@1", *options).code == 0

        assert server.bodies == [
            {"model": "shapes@1", "source": None, "kind": "auto", "store": "files", "codes": "float", "dimensions": None},
            {"model": "shapes@1", "source": None, "kind": "hnsw", "store": "pgvector", "codes": "float", "dimensions": None},
        ]


class TestAdd:
    def test_images_and_texts(self, cli: Cli, server: IndexServer, image_file: str) -> None:
        result = cli("indexes", "add", "gallery", image_file, "--text", "a cat", "--metadata", '{"year": 2020}')

        assert (result.code, result.out) == (0, "gallery shapes@1 ready, 300 items\n")
        assert server.bodies == [{"items": [
            {"id": image_file, "image": "AAEC", "metadata": {"file": image_file, "year": 2020}},
            {"id": "a cat", "text": "a cat", "metadata": {"text": "a cat", "year": 2020}},
        ]}]  # fmt: skip

    def test_many_images_are_sent_in_several_requests(
        self, cli: Cli, server: IndexServer, image_file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip.cli.commands.indexes.BODY_BYTES", 8)

        assert cli("indexes", "add", "gallery", image_file, image_file, image_file).code == 0

        assert [len(body["items"]) for body in server.bodies] == [2, 1]

    def test_a_rejected_item_is_reported(self, cli: Cli, server: IndexServer, image_file: str) -> None:
        rejected = {"update": 1, "id": image_file, "reason": "the image is cut off"}
        server.rejected = [{"update": 0, "id": "old", "reason": "x"}, rejected]

        result = cli("indexes", "add", "gallery", image_file)

        assert (result.code, result.err) == (1, f"not added: {image_file}: the image is cut off\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "name at least one FILE or --text"),
            (["--text", "a", "--text", "b", "--id", "x"], "--id names one item"),
            (["--text", "a", "--metadata", "[1]"], "[1] is not a JSON object"),
            (["--text", "a", "--metadata", "{"], "is not JSON"),
        ],
    )
    def test_invalid_arguments_are_refused(self, cli: Cli, server: IndexServer, arguments: list[str], message: str) -> None:
        result = cli("indexes", "add", "gallery", *arguments)

        assert result.code == 2
        assert message in " ".join(result.err.replace("│", "").split())
        assert server.bodies == []


def test_remove(cli: Cli, server: IndexServer) -> None:
    assert cli("indexes", "remove", "gallery", "a/b c.png", "d").code == 0

    assert server.bodies == ["a/b c.png", "d"]

"""Items of an index."""

import json

import httpx
from tinyclip.schemas import IndexItem

from tests.client.clients import Connect
from tests.client.documents import JSON, TIMES

INDEX = {"name": "gallery", "model": "shapes@1", "state": "updating", "updates": 3, **TIMES}
ITEMS: list[JSON | IndexItem] = [
    {"id": "a", "image": b"\x00\x01\x02", "metadata": {"year": 2020}}, IndexItem(id="b", vector=[0.5, 1.0]),
]  # fmt: skip


def handle(request: httpx.Request) -> httpx.Response:
    assert request.headers["idempotency-key"]
    if request.method == "DELETE":
        assert request.url.raw_path == b"/v1/indexes/gallery/items/a%2Fb%20c"
    else:
        assert request.url.path == "/v1/indexes/gallery/items"
        assert json.loads(request.content) == {"items": [
            {"id": "a", "image": "AAEC", "metadata": {"year": 2020}}, {"id": "b", "vector": [0.5, 1.0], "metadata": {}},
        ]}  # fmt: skip
    return httpx.Response(202, json=INDEX)


def test_items_are_added_and_removed(connect: Connect) -> None:
    client = connect(handle)

    added, removed = client.indexes.add("gallery", ITEMS), client.indexes.remove("gallery", "a/b c")

    assert (added.state, added.updates) == ("updating", 3)
    assert (removed.updates, removed.pending_updates) == (3, 0)


def test_one_item_and_its_thumbnail(connect: Connect) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        where = request.url.raw_path.decode()
        if "thumbnail" in where:
            assert where == "/v1/indexes/gallery/items/a%2Fb%20c/thumbnail?size=64"
            return httpx.Response(200, content=b"jpeg")
        assert where == "/v1/indexes/gallery/items/a%2Fb%20c"
        return httpx.Response(200, json={"id": "a/b c", "metadata": {"year": 2020}, "shard": None, "has_thumbnail": True})

    client = connect(handle)

    item = client.indexes.item("gallery", "a/b c")
    assert (item.metadata, item.shard, item.has_thumbnail) == ({"year": 2020}, None, True)
    assert client.indexes.thumbnail("gallery", "a/b c", size=64) == b"jpeg"

"""Queries to a deployed student."""

import json
from pathlib import Path

import httpx
import pytest
import tinyclip

from tests.client.clients import Connect
from tests.client.documents import DEPLOYMENT


def handle(request: httpx.Request) -> httpx.Response:
    if request.url.host == "server":
        return httpx.Response(200, json=DEPLOYMENT)
    assert request.headers["authorization"] == "Bearer secret"
    body = json.loads(request.content)
    match request.url.path:
        case "/shapes/zero-shot":
            assert body == {"images": ["AAEC"], "labels": ["cat", "dog"], "top_k": 5}
            return httpx.Response(200, json={"results": [[{"label": "cat", "score": 0.9}]], "model": "shapes@1"})
        case "/shapes/embeddings":
            vectors = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]
            return httpx.Response(200, json={"data": vectors, "model": "shapes@1"})
        case "/shapes/search":
            assert body == {"index": "gallery", "text": "a cat", "top_k": 3}
            return httpx.Response(200, json={"hits": [{"id": "7", "score": 0.5, "metadata": {}}], "model": "shapes@1"})
    return httpx.Response(404)


def handle_with_an_invalid_image(request: httpx.Request) -> httpx.Response:
    if request.url.host == "server":
        return httpx.Response(200, json=DEPLOYMENT)
    assert json.loads(request.content)["on_error"] == "skip"
    if request.url.path == "/shapes/zero-shot":
        return httpx.Response(200, json={"results": [None], "model": "shapes@1"})
    data = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": None}]
    errors = [{"pointer": "/input/0", "value": "eA==", "message": "is not an image"}]
    return httpx.Response(200, json={"data": data, "model": "shapes@1", "errors": errors})


def test_queries(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x00\x01\x02")
    student = connect(handle).deployments.open("shapes")

    assert student.classify(tmp_path / "cat.png", ["cat", "dog"])[0].label == "cat"
    assert student.embed_texts(["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
    assert student.embed_images([b"a", b"b"]) == [[1.0, 0.0], [0.0, 1.0]]
    assert student.search("gallery", "a cat", top_k=3).hits[0].id == "7"


def test_invalid_images_may_be_skipped(connect: Connect) -> None:
    student = connect(handle_with_an_invalid_image).deployments.open("shapes")

    found = student.embed_images([b"x", b"y"], on_error="skip")

    assert student.zero_shot([b"x"], ["cat"], on_error="skip").results == [None]
    assert found.vectors == [None, [0.0, 1.0]]
    assert [(error.pointer, error.message) for error in found.errors] == [("/input/0", "is not an image")]


def test_an_image_that_cannot_be_read_is_named(connect: Connect, tmp_path: Path) -> None:
    student = connect(handle).deployments.open("shapes")

    with pytest.raises(tinyclip.InputError, match=r"nowhere\.png: No such file or directory; name an image file"):
        student.classify(tmp_path / "nowhere.png", ["cat"])

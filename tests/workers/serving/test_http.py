"""The answers of a deployment over HTTP, its access control and its rejections. On a real Serve: `test_ray.py`."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tinyclip.artifacts.documents import TokenDigest, TokenDigests
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Scope
from tinyclip.token_format import digest, new_token
from tinyclip_workers.engines.protocol import Engine

from tests.workers.student_server import serving, serving_options
from tests.workers.students import base64_image, encoded, random_image, square_of

LABELS = ["cat", "dog", "house"]
GOOD, READER = new_token(), new_token()


@pytest.fixture(scope="module")
def http(artifacts: Path) -> Iterator[httpx.Client]:
    scopes = {GOOD: Scope.INFER, READER: Scope.READ}
    tokens = {digest(token): TokenDigest(project="default", scopes=[scope]) for token, scope in scopes.items()}
    ArtifactsStore(str(artifacts)).write_bytes(TOKEN_DIGESTS, TokenDigests(tokens=tokens).model_dump_json().encode())
    options = serving_options(
        artifacts, project="default", auth="tokens", max_image_bytes=100_000, max_body_bytes=1_000_000, batch_wait_s=0.05
    )
    with serving(options) as served, served.client(headers=bearer(GOOD)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    return document


class TestAnswers:
    def test_healthz(self, http: httpx.Client) -> None:
        health = http.get("/healthz").json()

        assert health.pop("engine_report")["engine"] == "torch"
        assert health == {
            "status": "ok", "deployment": "demo", "model": "student@1", "engine": "torch", "embed_dim": 24, "canary": None,
        }  # fmt: skip

    def test_zero_shot_with_json_multipart_and_hugging_face_agree(self, http: httpx.Client) -> None:
        template = "This is a photo of {}."
        as_json = http.post("/zero-shot", json={"image": base64_image(0), "labels": LABELS, "templates": [template]})
        as_form = http.post(
            "/zero-shot", files=[("image", ("a.png", encoded(random_image(0))))], data={"labels": LABELS, "templates": template}
        )
        as_hugging_face = http.post("/zero-shot", json={"inputs": base64_image(0), "parameters": {"candidate_labels": LABELS}})

        assert as_json.status_code == 200, as_json.text
        assert as_json.json()["model"] == "student@1"
        [scores] = as_json.json()["results"]
        assert {score["label"] for score in scores} == set(LABELS)
        assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-5)
        assert as_form.json() == as_json.json()
        assert as_hugging_face.json() == scores

    def test_several_images_one_of_them_bad_and_skipped(self, http: httpx.Client) -> None:
        body = {"images": [base64_image(0), "bm8gaW1hZ2U=", base64_image(1)], "labels": LABELS, "top_k": 1, "on_error": "skip"}

        results = http.post("/zero-shot", json=body).json()["results"]

        assert [None if result is None else len(result) for result in results] == [1, None, 1]

    @pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
    def test_embeddings_equal_the_engines(self, http: httpx.Client, engine: Engine, path: str) -> None:
        texts = http.post(path, json={"input": ["a cat", "a dog"], "model": "student@1"}).json()
        images = http.post(path, json={"input": [base64_image(0)], "modality": "image", "encoding_format": "base64"}).json()

        rows = [item["embedding"] for item in texts["data"]]
        np.testing.assert_allclose(rows, engine.encode_text(["a cat", "a dog"]), atol=1e-5)
        row = np.frombuffer(base64.b64decode(images["data"][0]["embedding"]), "<f4")
        np.testing.assert_allclose(row, engine.encode_image(square_of(random_image(0))[None])[0], atol=1e-5)

    def test_search_by_image_and_by_text(self, http: httpx.Client) -> None:
        by_image = http.post("/search", json={"index": "gallery", "image": base64_image(3), "top_k": 2}).json()
        by_text = http.post("/search", json={"index": "gallery", "text": "a cat"}).json()

        assert by_image["hits"][0]["id"] == "p3"
        assert by_image["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
        assert by_image["hits"][0]["metadata"]["caption"] == "picture 3"
        assert (len(by_image["hits"]), len(by_text["hits"])) == (2, 5)

    def test_search_for_items_like_one_of_the_index(self, http: httpx.Client) -> None:
        by_item = http.post("/search", json={"index": "gallery", "item": "p3", "top_k": 3}).json()
        by_image = http.post("/search", json={"index": "gallery", "image": base64_image(3), "top_k": 4}).json()
        by_form = http.post("/search", files={"item": (None, "p3"), "index": (None, "gallery"), "top_k": (None, "3")}).json()

        assert [hit["id"] for hit in by_item["hits"]] == [hit["id"] for hit in by_image["hits"][1:]]
        assert by_image["hits"][0]["id"] == "p3"
        assert by_form["hits"] == by_item["hits"]
        filtered = {"index": "gallery", "item": "p3", "top_k": 1, "filter": {"key": ["p3", "p4"]}}
        assert [hit["id"] for hit in http.post("/search", json=filtered).json()["hits"]] == ["p4"]

    def test_search_with_a_filter(self, http: httpx.Client) -> None:
        answer = http.post("/search", json={"index": "gallery", "text": "a cat", "filter": {"key": ["p1", "p4", "p9"]}}).json()

        assert {hit["id"] for hit in answer["hits"]} == {"p1", "p4"}
        assert (answer["kind"], answer["generation"]) == ("exact", 1)

    def test_concurrent_requests_get_their_own_answers(self, http: httpx.Client, engine: Engine) -> None:
        def embed(seed: int) -> list[float]:
            answer = http.post("/embeddings", json={"input": [base64_image(seed), base64_image(seed + 1)], "modality": "image"})
            return [value for item in answer.json()["data"] for value in item["embedding"]]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(embed, range(24)))

        expected = engine.encode_image(np.stack([square_of(random_image(seed)) for seed in range(25)]))
        for seed, answer in enumerate(answers):
            np.testing.assert_allclose(np.reshape(answer, (2, -1)), expected[seed : seed + 2], atol=1e-5)


class TestAccess:
    @pytest.mark.parametrize("path", ["/zero-shot", "/embeddings", "/search", "/", "/vectorize", "/knn-service", "/nowhere"])
    def test_queries_need_a_token_with_scope_infer(self, http: httpx.Client, path: str) -> None:
        body = {"input": "a cat", "image": base64_image(0), "labels": LABELS}
        with httpx.Client(base_url=http.base_url, timeout=30, trust_env=False) as client:
            assert problem(client.post(path, json=body), 401)["code"] == "token_required"
            assert problem(client.post(path, json=body, headers=bearer(new_token())), 401)["code"] == "token_unknown"
            assert problem(client.post(path, json=body, headers=bearer(READER)), 403)["code"] == "forbidden"

    @pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/.well-known/live", "/.well-known/ready"])
    def test_the_page_and_probes_are_open(self, http: httpx.Client, path: str) -> None:
        assert httpx.get(f"{http.base_url}{path.lstrip('/')}", trust_env=False).status_code in (200, 204)

    @pytest.mark.parametrize("path", ["/v1/models", "/label-sets", "/indices-list", "/meta"])
    def test_other_reads_need_a_token(self, http: httpx.Client, path: str) -> None:
        assert httpx.get(f"{http.base_url}{path.lstrip('/')}", trust_env=False).status_code == 401


class TestRejections:
    @pytest.mark.parametrize(
        ("body", "pointer", "message"),
        [
            ({"labels": LABELS}, "/image", "exactly one of image and images"),
            ({"image": "x", "images": ["x"], "labels": LABELS}, "/image", "exactly one of image and images"),
            ({"image": "x"}, "/labels", "this field is required"),
            ({"image": "x", "labels": []}, "/labels", "at least 1 item"),
            ({"image": "x", "labels": ["cat", " "]}, "/labels/1", "is blank"),
            ({"image": "x", "labels": ["cat", "\ud800"]}, "/labels/1", "lone surrogate"),
            ({"image": "x", "labels": ["cat"], "templates": ["a photo"]}, "/templates/0", "has no {}"),
            ({"image": "x", "labels": ["cat"], "topk": 3}, "/topk", "did you mean top_k?"),
            ({"image": "x", "labels": ["cat"], "top_k": 0}, "/top_k", "greater than or equal to 1"),
            ({"images": ["bm8gaW1hZ2U=", "?"], "labels": ["cat"]}, "/images/1", "is not base64"),
            ({"image": "http://127.0.0.1/x.png", "labels": ["cat"]}, "/image", "does not fetch URLs"),
            ({"inputs": "x", "parameters": {}}, "/parameters/candidate_labels", "this field is required"),
            ({"inputs": "x", "parameters": {"candidate_labels": ["a"], "hypothesis_template": "x"}},
             "/parameters/hypothesis_template", "has no {}"),
            ({"image": "x", "labels": ["l"] * 3000, "templates": ["{}"] * 100}, "/templates", "more than 50,000 texts"),
        ],
    )  # fmt: skip
    def test_zero_shot(self, http: httpx.Client, body: dict[str, Any], pointer: str, message: str) -> None:
        errors = problem(http.post("/zero-shot", content=json.dumps(body)), 422)["errors"]

        assert message in next(error["message"] for error in errors if error["pointer"] == pointer)

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[1]"])
    def test_a_body_that_is_no_json_object(self, http: httpx.Client, body: bytes) -> None:
        for path in ("/zero-shot", "/embeddings", "/search"):
            assert problem(http.post(path, content=body), 422)["detail"]

    def test_a_broken_form(self, http: httpx.Client) -> None:
        headers = {"content-type": "multipart/form-data; boundary=x"}

        assert problem(http.post("/zero-shot", content=b"--x\r\nbroken", headers=headers), 422)["detail"]

    def test_a_form_without_a_file(self, http: httpx.Client) -> None:
        answer = http.post("/zero-shot", files={"labels": (None, "cat")})

        assert problem(answer, 422)["errors"][0]["pointer"] == "/image"

    def test_too_large(self, http: httpx.Client) -> None:
        one_image = problem(http.post("/zero-shot", json={"image": "A" * 200_000, "labels": LABELS}), 422)
        whole_body = problem(http.post("/zero-shot", json={"image": "A" * 1_100_000, "labels": LABELS}), 413)

        assert "scale the image down" in one_image["detail"]
        assert "fewer or smaller images" in whole_body["detail"]
        assert len(json.dumps(one_image)) < 2000

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"input": []}, "/input"),
            ({"input": ""}, "/input"),
            ({"input": ["a", ""]}, "/input/1"),
            ({"input": "a", "model": "gpt-4"}, "/model"),
            ({"input": ["bm8gaW1hZ2U="], "modality": "image"}, "/input/0"),
            ({"input": "a", "encoding_format": "int8"}, "/encoding_format"),
        ],
    )
    def test_embeddings(self, http: httpx.Client, body: dict[str, Any], pointer: str) -> None:
        assert pointer in [error["pointer"] for error in problem(http.post("/embeddings", json=body), 422)["errors"]]

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({"index": "gallery"}, 422, "invalid_input"),
            ({"index": "gallery", "text": "a", "image": "b"}, 422, "invalid_input"),
            ({"index": "gallery", "text": "a", "top_k": 0}, 422, "invalid_input"),
            ({"index": "../x", "text": "a"}, 422, "invalid_input"),
            ({"index": "gallery", "text": "a", "item": "p3"}, 422, "invalid_input"),
            ({"index": "gallery", "item": ""}, 422, "invalid_input"),
            ({"index": "gallery", "item": "x" * 513}, 422, "invalid_input"),
            ({"index": "gallery", "item": "p/99"}, 404, "item_not_found"),
            ({"index": "nowhere", "text": "a"}, 404, "index_not_found"),
            ({"index": "nowhere", "item": "p3"}, 404, "index_not_found"),
            ({"index": "foreign", "item": "p3"}, 409, "index_of_another_model"),
            ({"index": "foreign", "text": "a"}, 409, "index_of_another_model"),
            ({"index": "gallery", "text": "a", "filter": {"year": {"above": 3}}}, 422, "invalid_input"),
        ],
    )
    def test_search(self, http: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
        assert problem(http.post("/search", json=body), status)["code"] == code

    def test_unknown_paths_and_methods(self, http: httpx.Client) -> None:
        assert "POST zero-shot" in problem(http.post("/classify", json={}), 404)["detail"]
        assert problem(http.get("/zero-shot"), 405)["code"] == "method_not_allowed"

"""Request shapes of other products, sent by their own clients where these can be installed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.http import openapi

from tests.workers.student_server import Served, serving, serving_options
from tests.workers.students import base64_image, encoded, random_image, square_of

DIM = 24


@pytest.fixture(scope="module")
def served(artifacts: Path) -> Iterator[Served]:
    with serving(serving_options(artifacts)) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    plain = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{served.endpoint}/v1", api_key="any", max_retries=0, http_client=plain) as client:
        yield client


def data_uri(seed: int) -> str:
    return f"data:image/png;base64,{base64_image(seed)}"


def image_rows(engine: Engine, *seeds: int) -> Any:
    return engine.encode_image(np.stack([square_of(random_image(seed)) for seed in seeds]))


class TestOpenAI:
    @pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"dimensions": DIM}])
    def test_texts(self, client: openai.OpenAI, engine: Engine, options: Any) -> None:
        """Without a format the client asks for base64 and decodes it."""
        answer = client.embeddings.create(model="demo", input=["a cat", "a dog"], user="someone", **options)

        rows: Any = [item.embedding for item in answer.data]
        if options.get("encoding_format") == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        np.testing.assert_allclose(rows, engine.encode_text(["a cat", "a dog"]), atol=1e-5)
        assert (answer.model, answer.object, [item.index for item in answer.data]) == ("student@1", "list", [0, 1])
        assert answer.usage.total_tokens == answer.usage.prompt_tokens == 4

    def test_images_by_modality(self, client: openai.OpenAI, engine: Engine) -> None:
        answer = client.embeddings.create(model="student", input=[data_uri(0), base64_image(1)], extra_body={"modality": "image"})

        np.testing.assert_allclose([item.embedding for item in answer.data], image_rows(engine, 0, 1), atol=1e-5)

    @pytest.mark.parametrize(
        ("change", "param", "message"),
        [
            ({"input": ["a", " "]}, "input.1", "is blank"),
            ({"dimensions": 12}, "dimensions", "24 numbers"),
            ({"model": "text-embedding-3-small"}, "model", "name one of student@1"),
            ({"input": [[1, 2], [3]]}, "input", "token numbers"),
            ({"input": []}, "input", "give 1 to 2,048"),
        ],
    )
    def test_rejections_are_errors_of_the_client(self, client: openai.OpenAI, change: Any, param: str, message: str) -> None:
        with pytest.raises(openai.UnprocessableEntityError, match=message) as rejected:
            client.embeddings.create(**{"model": "demo", "input": "a cat", **change})

        assert (rejected.value.param, rejected.value.type) == (param, "invalid_request_error")
        assert rejected.value.request_id is not None
        assert rejected.value.body["request_id"] == rejected.value.request_id  # type: ignore[index]

    def test_models(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == ["student@1", "demo"]
        assert client.models.retrieve("student@1").object == "model"
        with pytest.raises(openai.NotFoundError, match="no model gpt-4"):
            client.models.retrieve("gpt-4")

    def test_unknown_paths_have_openais_error_shape(self, http: httpx.Client) -> None:
        assert http.post("/v1/chat/completions", json={}).json()["error"]["code"] == "not_found"


class TestOtherInputs:
    def embedded(self, http: httpx.Client, **body: Any) -> Any:
        answer = http.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        return [item["embedding"] for item in answer.json()["data"]]

    def test_jinas_objects_can_be_mixed(self, http: httpx.Client, engine: Engine) -> None:
        rows = self.embedded(http, input=[{"image": base64_image(0)}, {"text": "a cat"}, "a dog"])

        texts = engine.encode_text(["a cat", "a dog"])
        np.testing.assert_allclose(rows, [image_rows(engine, 0)[0], *texts], atol=1e-5)

    def test_chat_messages(self, http: httpx.Client, engine: Engine) -> None:
        content = [{"type": "image_url", "image_url": {"url": data_uri(2)}}, {"type": "text", "text": "a cat"}]
        rows = self.embedded(http, messages=[{"role": "user", "content": content}, {"role": "user", "content": "a dog"}])

        texts = engine.encode_text(["a cat", "a dog"])
        np.testing.assert_allclose(rows, [image_rows(engine, 2)[0], *texts], atol=1e-5)

    def test_forms(self, http: httpx.Client, engine: Engine) -> None:
        files = [("image", ("a.png", encoded(random_image(seed)))) for seed in (0, 1)]
        answer = http.post("/embeddings", files=files, data={"input": ["a cat"], "encoding_format": "base64"})

        rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer.json()["data"]]
        np.testing.assert_allclose(rows, [*image_rows(engine, 0, 1), engine.encode_text(["a cat"])[0]], atol=1e-5)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/input"),
            ({"input": "a", "messages": [{"content": "b"}]}, "/input"),
            ({"input": [{"text": "a", "image": "b"}]}, "/input/0"),
            ({"input": [{"image": "bm8="}, "a"]}, "/input/0/image"),
            ({"messages": [{"role": "user"}]}, "/messages/0/content"),
            ({"messages": [{"content": 7}]}, "/messages/0/content"),
            ({"messages": [{"content": [{"type": "audio"}]}]}, "/messages/0/content/0"),
            ({"messages": [{"content": [{"type": "image_url", "image_url": "bm8="}]}]}, "/messages/0/content/0/image_url"),
            ({"input": 7}, "/input"),
            ({"input": [{"img": "x"}]}, "/input/0/img"),
        ],
    )
    def test_rejections(self, http: httpx.Client, body: Any, pointer: str) -> None:
        answer = http.post("/embeddings", json=body)

        assert answer.status_code == 422
        assert any(error["pointer"].startswith(pointer) for error in answer.json()["errors"]), answer.text


class TestHuggingFace:
    @pytest.mark.parametrize("path", ["", "/", "/zero-shot"])
    def test_the_client_classifies(self, served: Served, http: httpx.Client, path: str) -> None:
        client = InferenceClient(model=served.endpoint + path, token="tc_any")

        found = client.zero_shot_image_classification(encoded(random_image(0)), candidate_labels=["cat", "dog", "house"])

        body = {"image": base64_image(0), "labels": ["cat", "dog", "house"], "templates": ["This is a photo of {}."]}
        [ours] = http.post("/zero-shot", json=body).json()["results"]
        assert [(one.label, one.score) for one in found] == [(one["label"], pytest.approx(one["score"])) for one in ours]

    def test_its_template_is_used(self, served: Served, http: httpx.Client) -> None:
        client = InferenceClient(model=served.endpoint)

        found = client.zero_shot_image_classification(
            encoded(random_image(1)), candidate_labels=["cat", "dog"], hypothesis_template="{}, drawn"
        )

        body = {"image": base64_image(1), "labels": ["cat", "dog"], "templates": ["{}, drawn"]}
        assert found[0].score == pytest.approx(http.post("/zero-shot", json=body).json()["results"][0][0]["score"])


class TestWeaviate:
    def test_vectorize(self, http: httpx.Client, engine: Engine) -> None:
        answer = http.post("/vectorize", json={"texts": ["a cat", "a dog"], "images": [base64_image(0)]}).json()

        np.testing.assert_allclose(answer["textVectors"], engine.encode_text(["a cat", "a dog"]), atol=1e-5)
        np.testing.assert_allclose(answer["imageVectors"], image_rows(engine, 0), atol=1e-5)

    @pytest.mark.parametrize("body", [{}, {"texts": [], "images": []}, {"texts": None}])
    def test_an_empty_request_has_an_empty_answer(self, http: httpx.Client, body: Any) -> None:
        assert http.post("/vectorize", json=body).json() == {"textVectors": [], "imageVectors": []}

    def test_a_rejection_has_its_reason_under_error(self, http: httpx.Client) -> None:
        answer = http.post("/vectorize", json={"images": ["bm8="]})

        assert answer.status_code == 422
        assert answer.json()["error"].startswith("/images/0: not a readable image")

    def test_liveness_and_readiness(self, http: httpx.Client) -> None:
        assert [http.get(f"/.well-known/{what}").status_code for what in ("live", "ready")] == [204, 204]
        assert http.get("/meta").json()["model"] == "student@1"


class TestClipRetrieval:
    SWITCHES = {
        "embedding_input": None, "deduplicate": True, "use_safety_model": True, "use_violence_detector": True, "use_mclip": False,
        "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_result_ids": 2,
    }
    """Other fields that its client always sends."""

    def test_search_by_image_and_by_text(self, http: httpx.Client) -> None:
        body = {**self.SWITCHES, "indice_name": "gallery", "num_images": 2}
        by_image = http.post("/knn-service", json={**body, "text": None, "image": base64_image(3), "image_url": None}).json()
        by_text = http.post("/knn-service", json={**body, "text": "a cat", "image": None, "image_url": None}).json()
        ours = http.post("/search", json={"index": "gallery", "text": "a cat", "top_k": 2}).json()["hits"]

        assert (by_image[0]["id"], by_image[0]["caption"]) == ("p3", "picture 3")
        assert by_image[0]["similarity"] == pytest.approx(1, abs=1e-4)
        assert [(hit["id"], hit["similarity"]) for hit in by_text] == [(hit["id"], hit["score"]) for hit in ours]

    def test_search_by_an_embedding(self, http: httpx.Client, engine: Engine) -> None:
        vector = (3 * image_rows(engine, 2)[0]).tolist()
        body = {**self.SWITCHES, "indice_name": "gallery", "num_images": 1, "embedding_input": vector}

        [hit] = http.post("/knn-service", json=body).json()

        assert (hit["id"], hit["similarity"]) == ("p2", pytest.approx(1, abs=1e-4))

    def test_the_list_has_the_indexes_of_this_model(self, http: httpx.Client) -> None:
        assert http.get("/indices-list").json() == ["gallery"]

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"text": None}, "/text"),
            ({"image": "x"}, "/text"),
            ({"modality": "text"}, "/modality"),
            ({"use_mclip": True}, "/use_mclip"),
            ({"num_images": 0}, "/num_images"),
            ({"text": None, "embedding_input": [1.0, 2.0]}, "/embedding_input"),
            ({"text": None, "embedding_input": [0.0] * DIM}, "/embedding_input"),
            ({"embedding_input": [1.0] * DIM}, "/text"),
            ({"text": None, "image": "bm8="}, "/image"),
        ],
    )
    def test_rejections(self, http: httpx.Client, change: Any, pointer: str) -> None:
        answer = http.post("/knn-service", json={**self.SWITCHES, "indice_name": "gallery", "text": "a cat", **change})

        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


class TestSearchForms:
    def test_a_file(self, http: httpx.Client) -> None:
        answer = http.post("/search", files={"image": encoded(random_image(2))}, data={"index": "gallery", "top_k": "1"})

        assert [hit["id"] for hit in answer.json()["hits"]] == ["p2"]

    def test_two_files(self, http: httpx.Client) -> None:
        files = [("image", encoded(random_image(seed))) for seed in (0, 1)]

        answer = http.post("/search", files=files, data={"index": "gallery"})

        assert answer.json()["errors"][0]["pointer"] == "/image"


class TestPage:
    @pytest.mark.parametrize("path", ["", "/"])
    def test_it_is_self_contained_and_loads_nothing_from_elsewhere(self, served: Served, path: str) -> None:
        answer = httpx.get(served.endpoint + path, trust_env=False)

        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert all(word in answer.text for word in ("/zero-shot", "/search", 'id="token"'))


class TestOpenApi:
    def test_every_reference_is_defined(self, http: httpx.Client) -> None:
        text = http.get("/openapi.json").text
        document = json.loads(text)
        names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

        assert document["servers"] == [{"url": "/demo"}]
        assert names <= document["components"]["schemas"].keys()
        assert {"ZeroShotRequest", "ZeroShotResponse", "EmbeddingsRequest", "SearchRequest", "Problem", "LabelSet"} <= names

    def test_it_is_made_once(self, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
        first = http.get("/openapi.json").content
        monkeypatch.setattr(openapi, "document", None)

        assert http.get("/openapi.json").content == first

    def test_every_route_is_documented_and_answers(self, http: httpx.Client) -> None:
        paths = http.get("/openapi.json").json()["paths"]

        for path, operations in paths.items():
            for method in operations:
                answer = http.request(method, path.replace("{name}", "x").replace("{id}", "demo"))
                assert answer.status_code in (200, 204, 404, 422), (method, path, answer.text)
                assert answer.status_code != 404 or "{" in path

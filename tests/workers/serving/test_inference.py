"""The answers of a model, with the engine called directly: no HTTP, no Ray."""

import base64
import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.serving.problems import ProblemError
from tinyclip_workers.serving.queries.embeddings import EmbeddingInput, EmbeddingRows, EmbeddingsQuery, embeddings_response
from tinyclip_workers.serving.queries.inputs import Images
from tinyclip_workers.serving.queries.zero_shot import ZeroShotQuery
from tinyclip_workers.serving.replica.inference import InferenceService
from tinyclip_workers.types import Matrix, Pixels

from tests.workers.student_server import serving_options
from tests.workers.students import base64_image, encoded, random_image, square_of

LABELS = ["cat", "dog", "red house", "the sea at night"]
TEMPLATES = ["a photo of a {}.", "{}, drawn"]


class CountingEncoder:
    """Calls the engine without batching and records the texts."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.encoded_texts = engine, list[str]()

    async def encode_images(self, images: Sequence[Pixels]) -> Matrix:
        return self.engine.encode_image(np.stack(images))

    async def encode_texts(self, texts: Sequence[str]) -> Matrix:
        self.encoded_texts += texts
        return self.engine.encode_text(texts)


@pytest.fixture
def encoder(engine: Engine) -> CountingEncoder:
    return CountingEncoder(engine)


@pytest.fixture
def service(engine: Engine, encoder: CountingEncoder, artifacts: Path) -> InferenceService:
    return InferenceService(serving_options(artifacts), engine, encoder, ThreadPoolExecutor(2))


def query(*images: bytes, skip: bool = False, top_k: int = 4, labels: list[str] = LABELS) -> ZeroShotQuery:
    return ZeroShotQuery(Images(images, [f"/images/{i}" for i in range(len(images))]), labels, TEMPLATES, top_k, skip)


class TestZeroShot:
    async def test_scores_equal_those_of_open_clip(self, service: InferenceService, folder: Path) -> None:
        image_32 = random_image(3, (32, 32))  # of the model's size: resizing is compared in data/test_decoding.py
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        classifier = open_clip.build_zero_shot_classifier(
            model.eval(), tokenize, LABELS, [lambda c, t=t: t.replace("{}", c) for t in TEMPLATES], device="cpu"
        )
        with torch.no_grad():
            image = model.encode_image(transform(image_32).unsqueeze(0), normalize=True)
            expected = (model.logit_scale.exp() * image @ classifier).softmax(-1)[0].tolist()

        answer = await service.zero_shot(query(encoded(image_32)))

        assert answer.model == "student@1"
        assert answer.results[0] is not None
        scores = {result.label: result.score for result in answer.results[0]}
        assert [scores[label] for label in LABELS] == pytest.approx(expected, abs=1e-5)
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)

    async def test_top_k_are_the_best_in_order(self, service: InferenceService) -> None:
        everything = await service.zero_shot(query(encoded(random_image(1))))
        best = await service.zero_shot(query(encoded(random_image(1)), top_k=2))

        assert everything.results[0] == sorted(everything.results[0] or [], key=lambda result: -result.score)
        assert best.results[0] == (everything.results[0] or [])[:2]

    async def test_labels_are_computed_once(self, service: InferenceService, encoder: CountingEncoder) -> None:
        for seed in range(3):
            await service.zero_shot(query(encoded(random_image(seed))))
        await service.zero_shot(query(encoded(random_image(0)), labels=[*LABELS, "new"]))

        assert len(encoder.encoded_texts) == len(set(encoder.encoded_texts)) == (len(LABELS) + 1) * len(TEMPLATES)

    async def test_every_bad_image_is_named(self, service: InferenceService) -> None:
        with pytest.raises(ProblemError) as rejected:
            await service.zero_shot(query(b"", encoded(random_image(0)), b"no image"))

        assert rejected.value.problem.status == 422
        assert [error.pointer for error in rejected.value.problem.errors] == ["/images/0", "/images/2"]

    async def test_bad_images_are_skipped_on_request(self, service: InferenceService) -> None:
        alone = await service.zero_shot(query(encoded(random_image(0))))

        answer = await service.zero_shot(query(b"", encoded(random_image(0)), b"no image", skip=True))

        assert answer.results == [None, alone.results[0], None]

    async def test_bad_images_only(self, service: InferenceService) -> None:
        answer = await service.zero_shot(query(b"", b"no image", skip=True))

        assert answer.results == [None, None]


def texts_of(*texts: str) -> EmbeddingsQuery:
    return EmbeddingsQuery([EmbeddingInput("text", text, f"/input/{i}") for i, text in enumerate(texts)])


class TestEmbeddings:
    async def test_texts_as_numbers_and_as_base64(self, service: InferenceService, engine: Engine) -> None:
        query = texts_of("a cat", "a dog", "a cat")
        embedded = await service.embeddings(query)
        numbers = json.loads(embeddings_response(query, embedded, "student@1"))
        packed = json.loads(embeddings_response(dataclasses.replace(query, encoding="base64"), embedded, "student@1"))

        decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed["data"]]
        np.testing.assert_allclose([item["embedding"] for item in numbers["data"]], engine.encode_text(query.texts), atol=1e-6)
        np.testing.assert_array_equal(decoded, np.float32([item["embedding"] for item in numbers["data"]]))
        assert numbers["object"] == "list"
        assert [item["index"] for item in numbers["data"]] == [0, 1, 2]

    async def test_texts_and_images_in_one_list_keep_their_order(self, service: InferenceService, engine: Engine) -> None:
        inputs = [EmbeddingInput("image", encoded(random_image(1)), "/input/0"), EmbeddingInput("text", "a cat", "/input/1"),
                  EmbeddingInput("image", encoded(random_image(2)), "/input/2")]

        rows = (await service.embeddings(EmbeddingsQuery(inputs))).rows

        image_rows = engine.encode_image(np.stack([square_of(random_image(1)), square_of(random_image(2))]))
        np.testing.assert_allclose(rows, [image_rows[0], engine.encode_text(["a cat"])[0], image_rows[1]], atol=1e-5)
        assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-5)

    async def test_a_bad_image_is_named(self, service: InferenceService) -> None:
        with pytest.raises(ProblemError) as rejected:
            await service.embeddings(self.query_with_a_bad_image())

        [error] = rejected.value.problem.errors
        assert (error.pointer, error.value) == ("/input/1", "https://example.com/cat.png")

    async def test_a_bad_image_is_skipped_on_request(self, service: InferenceService) -> None:
        query = dataclasses.replace(self.query_with_a_bad_image(), skip_bad_images=True)

        embedded: EmbeddingRows = await service.embeddings(query)

        assert [row is None for row in embedded.rows] == [False, True]
        assert json.loads(embeddings_response(query, embedded, "m"))["errors"][0]["pointer"] == "/input/1"

    async def test_another_number_of_dimensions_is_rejected(self, service: InferenceService, engine: Engine) -> None:
        with pytest.raises(ProblemError, match="24 numbers"):
            await service.embeddings(dataclasses.replace(texts_of("a cat"), dimensions=12))

        assert (await service.embeddings(dataclasses.replace(texts_of("a cat"), dimensions=24))).rows[0].shape == (24,)

    async def test_nested_embeddings_are_cut_to_a_trained_size(
        self, service: InferenceService, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine, "embedding_sizes", (6, 12, 24))
        [whole] = (await service.embeddings(texts_of("a cat"))).rows

        [row] = (await service.embeddings(dataclasses.replace(texts_of("a cat"), dimensions=12))).rows

        assert whole is not None
        assert row is not None
        np.testing.assert_allclose(row, whole[:12] / np.linalg.norm(whole[:12]), rtol=1e-5)
        with pytest.raises(ProblemError, match="trained for 6, 12 and 24 numbers"):
            await service.embeddings(dataclasses.replace(texts_of("a cat"), dimensions=8))

    def query_with_a_bad_image(self) -> EmbeddingsQuery:
        url = "https://example.com/cat.png"
        return EmbeddingsQuery([EmbeddingInput("image", base64_image(0), "/input/0"), EmbeddingInput("image", url, "/input/1")])

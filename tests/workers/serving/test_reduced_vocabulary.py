"""A deployment of a model with a reduced vocabulary reports the tokens that it does not know."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tinyclip.schemas import ExportOptions
from tinyclip_workers.exporting.formats.tinyclip import export_tinyclip
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reduced_model, tokens_of

from tests.workers.student_server import Served, serving, serving_options
from tests.workers.students import base64_image

UNKNOWN = "x-tinyclip-unknown-tokens"
TEXTS = ["a photo of a cat", "a drawing of a dog", "a red house"]


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("reduced")
    (root / "models/student/1").mkdir(parents=True)
    small = reduced_model(load_folder(str(folder)), Vocabulary.of_tokens(tokens_of(TEXTS, 77)))
    export_tinyclip(small, root / "models/student/1", ExportOptions())
    with serving(serving_options(root)) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def test_unknown_tokens_of_texts_are_in_a_header_also_when_the_text_is_cached(http: httpx.Client) -> None:
    known = http.post("/v1/embeddings", json={"input": TEXTS})
    first, again = (http.post("/v1/embeddings", json={"input": ["a cat", "a zebra in a red house"]}) for _ in range(2))
    many = http.post("/v1/embeddings", json={"input": ["a zebra"] * 40})

    assert UNKNOWN not in known.headers
    assert [answer.headers[UNKNOWN] for answer in (first, again)] == ["2", "2"]  # zebra, in
    assert many.headers[UNKNOWN] == "40"


def test_unknown_tokens_of_labels_and_templates_are_in_a_header(http: httpx.Client) -> None:
    image = base64_image(1)

    known = http.post("/zero-shot", json={"image": image, "labels": ["cat", "dog"], "templates": ["a photo of a {}"]})
    unknown = http.post("/zero-shot", json={"image": image, "labels": ["cat", "zebra"], "templates": ["a {} outside"]})

    assert (known.status_code, unknown.status_code) == (200, 200)
    assert UNKNOWN not in known.headers
    assert unknown.headers[UNKNOWN] == "2"


def test_a_label_set_with_unknown_words_is_stored_with_a_warning(http: httpx.Client) -> None:
    labels = ["cat", "zebra", *(f"elephant {number}" for number in range(6))]

    fine = http.put("/label-sets/fine", json={"labels": ["cat", "dog"]}).json()
    made = http.put("/label-sets/odd", json={"labels": labels}).json()

    assert "warnings" not in fine
    [warning] = made["warnings"]
    assert warning.startswith("7 of 9 labels and templates have words that are not in the reduced vocabulary of student@1")
    assert "'zebra', 'elephant 0', 'elephant 1', 'elephant 2', 'elephant 3', …; use a version with" in warning
    assert http.get("/label-sets/odd").json() == {"name": "odd", "labels": labels, "templates": ["{}"]}


def test_unknown_tokens_are_counted_by_route_and_model(served: Served, http: httpx.Client) -> None:
    counted: list[tuple[int, dict[str, str]]] = []
    metrics = served.replica.metrics
    metrics._flush()
    metrics._unknown_tokens.inc = lambda value, tags: counted.append((value, tags))  # type: ignore[method-assign]

    http.post("/v1/embeddings", json={"input": "a zebra"})
    metrics._flush()

    assert counted == [(1, {"route": "/v1/embeddings", "model": "student@1"})]

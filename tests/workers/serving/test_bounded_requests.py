"""Hostile requests of up to 16 MiB to a replica in its own process: none blocks its event loop or fills its memory."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.load_probe import MIB, ProbedProcess, expect_small_load, filled, listed
from tests.workers.student_server import serving, serving_options
from tests.workers.students import encoded, random_image

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory through /proc"),
    pytest.mark.timeout(300),
]
JSON = "application/json"
FORM = "multipart/form-data; boundary=x"
IMAGE = base64.b64encode(encoded(random_image(0))).decode()


@dataclass(frozen=True)
class Shape:
    """A hostile request; `body` returns a body of about a size."""

    path: str
    body: Callable[[int], bytes]
    kind: str = JSON
    method: str = "POST"


def labels(unit: str, end: str = "]}") -> Callable[[int], bytes]:
    return listed('{"image":"' + IMAGE + '","labels":[', unit, end)


def part(name: str, value: str = "", headers: str = "") -> str:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n{headers}\r\n{value}\r\n'


TEMPLATES = '],"templates":["' + "{}" * 4000 + '"]}'
SHAPES: dict[str, Shape] = {
    "nulls": Shape("/embeddings", listed('{"input":[', "null", "]}")),
    "numbers": Shape("/embeddings", listed('{"input":[', "1.5", "]}")),
    "short texts": Shape("/embeddings", listed('{"input":[', '"t{#}"', "]}")),
    "long texts": Shape("/embeddings", listed('{"input":[', '"{#}' + "k" * 20_000 + '"', "]}")),
    "one long text": Shape("/embeddings", filled('{"input":"', "k", '"}')),
    "parts of unknown fields": Shape("/embeddings", listed('{"input":[', '{"a":1,"b":2}', "]}")),
    "messages": Shape("/embeddings", listed('{"messages":[', '{"content":"a"}', "]}")),
    "messages of many parts": Shape("/v1/embeddings", listed('{"messages":[{"content":[', '{"type":"text","text":"a"}', "]}]}")),
    "messages of numbers": Shape("/v1/embeddings", listed('{"messages":[', "0", "]}")),
    "an image that is none": Shape("/embeddings", filled('{"modality":"image","input":"', "QUJD", '"}')),
    "spaces in base64": Shape("/embeddings", filled('{"modality":"image","input":"', "AB ", '"}')),
    "many images that are none": Shape("/embeddings", listed('{"modality":"image","input":[', '"' + "QUJD" * 20_000 + '"', "]}")),
    "deep lists": Shape("/embeddings", filled('{"input":', "[", "")),
    "deep objects": Shape("/search", filled('{"index":"gallery","text":"a","filter":', '{"a":', "1")),
    "empty lists": Shape("/embeddings", listed('{"input":[', "[]", "]}")),
    "unknown fields": Shape("/zero-shot", listed("{", '"field{#}":1', "}")),
    "huge keys": Shape("/zero-shot", listed("{", '"{#}' + "k" * 100_000 + '":1', "}")),
    "duplicate keys": Shape("/zero-shot", listed("{", '"image":1', "}")),
    "digits": Shape("/zero-shot", filled('{"top_k":', "9", "}")),
    "integers of 4,299 digits": Shape("/zero-shot", labels("9" * 4299)),
    "NaN": Shape("/zero-shot", labels("NaN")),
    "lone surrogates": Shape("/zero-shot", labels('"\\ud800"')),
    "escapes": Shape("/zero-shot", filled('{"image":"', "\\u0041", '"}')),
    "labels": Shape("/zero-shot", labels('"label {#}"')),
    "invalid labels": Shape("/zero-shot", labels("0")),
    "blank labels": Shape("/zero-shot", labels('" "')),
    "long labels": Shape("/zero-shot", labels('"{#}' + "l" * 9_990 + '"')),
    "templates with many braces": Shape("/zero-shot", labels('"' + "l" * 5_000 + '"', TEMPLATES)),
    "images": Shape("/zero-shot", listed('{"labels":["a"],"images":[', '"QUJD"', "]}")),
    "conditions": Shape("/search", listed('{"index":"gallery","text":"a","filter":{', '"k{#}":1', "}}")),
    "values of a condition": Shape("/search", listed('{"index":"gallery","text":"a","filter":{"k":[', '"v{#}"', "]}}")),
    "candidate labels": Shape("/", filled('{"inputs":"a","parameters":{"candidate_labels":"', "a,", '"}}')),
    "an embedding": Shape("/knn-service", listed('{"indice_name":"gallery","embedding_input":[', "0.12345", "]}")),
    "invalid texts": Shape("/vectorize", listed('{"texts":[', "0", "]}")),
    "a label set": Shape("/label-sets/a", listed('{"labels":[', '"label {#}"', "]}"), method="PUT"),
    "text that is not JSON": Shape("/zero-shot", filled("", "{\0", "")),
    "a million parts": Shape("/zero-shot", filled("", part("a"), "--x--"), FORM),
    "empty parts": Shape("/zero-shot", filled("", "--x\r\n\r\n\r\n", "--x--"), FORM),
    "many files": Shape("/zero-shot", filled("", part("image").replace('"image"', '"image"; filename="a"'), "--x--"), FORM),
    "a long field": Shape("/zero-shot", filled(part("labels")[:-2], "a", "\r\n--x--"), FORM),
    "headers of a part": Shape("/zero-shot", filled("--x\r\n", "A: b\r\n", "\r\n\r\n--x--"), FORM),
    "one long header of a part": Shape("/zero-shot", filled("--x\r\nA: ", "b", "\r\n\r\n\r\n--x--"), FORM),
    "almost boundaries": Shape("/zero-shot", filled(part("labels")[:-2], "\r\n--y", "\r\n--x--"), FORM),
    "no boundary": Shape("/zero-shot", filled("", "a", ""), FORM),
    "a filter in a form": Shape("/search", filled(part("filter")[:-2], "[", "\r\n--x--"), FORM),
}


@dataclass(frozen=True)
class Deployment:
    process: ProbedProcess
    url: str

    def expect_small_cost(self, shape: Shape, size: int) -> httpx.Response:
        """Send a request with a body of about this size, and return the answer. Raises AssertionError."""
        body = shape.body(size)

        def send() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=120) as http:
                return http.request(shape.method, self.url + shape.path, content=body, headers={"Content-Type": shape.kind})

        return expect_small_load(self.process, send)


@pytest.fixture(scope="module")
def deployment(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    log = tmp_path_factory.mktemp("bounded") / "log"
    process = ProbedProcess("tests.workers.probed_replica", [str(artifacts)], log, dict(os.environ))
    try:
        deployment = Deployment(process, process.line().strip())
        with httpx.Client(trust_env=False, timeout=60) as http:
            warm = {"image": IMAGE, "labels": ["a", "b"]}
            assert http.post(f"{deployment.url}/zero-shot", content=json.dumps(warm)).status_code == 200
        yield deployment
    finally:
        process.stop()


@pytest.mark.parametrize("mib", [16, 1])
@pytest.mark.parametrize("name", SHAPES)
def test_a_hostile_request_costs_little(deployment: Deployment, name: str, mib: int) -> None:
    answer = deployment.expect_small_cost(SHAPES[name], mib * MIB - 30_000)

    assert answer.status_code != 500


def test_scores_are_limited(deployment: Deployment) -> None:
    many = json.dumps({"images": [IMAGE] * 256, "labels": [f"l{i}" for i in range(1000)], "top_k": 1000}).encode()

    answer = deployment.expect_small_cost(Shape("/zero-shot", lambda size: many), 0)

    assert answer.json()["errors"][0]["pointer"] == "/top_k"


def test_the_memory_for_all_bodies_is_limited(artifacts: Path) -> None:
    with serving(serving_options(artifacts, max_held_bytes=1000)) as served, served.client() as client:
        refused = client.post("/embeddings", json={"input": "a" * 2000})
        accepted = [client.post("/embeddings", json={"input": "a" * 900}).status_code for _ in range(3)]

    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "busy", "2")
    assert accepted == [200, 200, 200]

"""Arbitrary requests to every route: an answer below 500, in JSON, and the deployment keeps serving."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workers.student_server import serving, serving_options

POSTS = ["/zero-shot", "/embeddings", "/v1/embeddings", "/search", "/vectorize", "/knn-service", "/"]
FIELDS = [
    "image", "images", "labels", "label_set", "templates", "top_k", "on_error", "input", "messages", "modality", "dimensions",
    "encoding_format", "model", "index", "text", "filter", "inputs", "parameters", "texts", "indice_name", "image_url",
    "embedding_input", "num_images", "candidate_labels", "content", "type", "url",
]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["\ud800", "a", "{}", " ", "data:image/png;base64,", "aGk=", "http://127.0.0.1/", "skip", "image", "\0"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([10**400, -1, 0, 1]), st.floats(), TEXTS)
NAMES = st.one_of(st.sampled_from(FIELDS), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=3)), max_leaves=8
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)


@pytest.fixture(scope="module")
def http(artifacts: Path) -> Iterator[httpx.Client]:
    with serving(serving_options(artifacts)) as served, served.client() as client:
        yield client


def defect(answer: httpx.Response) -> str | None:
    """Return what is wrong with an answer; None if it is a success, or a problem document with a reason."""
    if answer.status_code >= 500:
        return f"{answer.status_code}: {answer.text}"
    if not answer.headers["x-request-id"]:
        return "it has no id"
    document: Any = answer.json() if answer.content else None
    if answer.status_code < 400:
        return None
    problem = document.get("error", document) if "/v1/" in str(answer.url) else document
    has_reason = problem["code"] and (problem.get("detail") or problem.get("message"))
    return None if has_reason else f"it has no reason: {document}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), document=DOCUMENTS)
def test_documents(http: httpx.Client, path: str, document: Any) -> None:
    assert defect(http.post(path, content=json.dumps(document))) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=200), form=st.booleans())
def test_bytes(http: httpx.Client, path: str, body: bytes, form: bool) -> None:
    kind = "multipart/form-data; boundary=x" if form else "application/json"

    assert defect(http.post(path, content=b"--x\r\n" + body if form else body, headers={"content-type": kind})) is None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(POSTS),
    files=st.lists(st.tuples(st.sampled_from(["image", "images", "labels", "input"]), st.binary(max_size=50)), max_size=3),
    fields=st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=10), max_size=4),
)
def test_forms(http: httpx.Client, path: str, files: list[tuple[str, bytes]], fields: dict[str, str]) -> None:
    assert defect(http.post(path, files=[(name, ("f", data)) for name, data in files], data=fields)) is None


@pytest.mark.parametrize(
    "body", [{"\ud800": 1}, {"labels": ["\ud800"], "image": "x"}, {"image": "x", "labels": ["a"], "top_k": 10**400}]
)
def test_regressions(http: httpx.Client, body: Any) -> None:
    assert defect(http.post("/zero-shot", content=json.dumps(body))) is None


@pytest.mark.parametrize(
    "rest", [b"bad", b'"b":' + b"[" * 20_000, b'"b":' + b"9" * 5000 + b"}", b'"b":"\xff"}'],
    ids=["malformed", "deep", "a long number", "not UTF-8"],
)
def test_a_lone_surrogate_before_something_else_that_is_wrong(http: httpx.Client, rest: bytes) -> None:
    answer = http.post("/zero-shot", content=b'{"image":"\\ud800",' + rest)

    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("kind", ["multipart/form-data", "Multipart/Form-Data; boundary=", "multipart/form-data; boundary=\xe4"])
def test_forms_without_a_boundary(http: httpx.Client, kind: str) -> None:
    assert defect(http.post("/zero-shot", content=b"--x\r\n", headers={"content-type": kind.encode("latin-1")})) is None  # type: ignore[dict-item]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
@pytest.mark.parametrize("path", ["/zero-shot", "/label-sets/x", "/%00", "/label-sets/%2e%2e", "//", "/v1/models/%f0"])
def test_methods_and_paths(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)

    assert answer.status_code < 500
    assert answer.headers["x-request-id"]

"""What every request goes through: ids, limits of time and number, faults, metrics and the log."""

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from tinyclip_workers.serving.options import ServingOptions

from tests.workers.student_server import Served, serving
from tests.workers.students import encoded, random_image, write_student

Lines = Callable[[int], list[dict[str, Any]]]

SECRET = "nobody may read this label"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("artifacts")
    folder = write_student(root / "models/student/1")
    options = ServingOptions(
        engine="torch",
        name="demo", model="student@1", model_uri=str(folder), artifacts=str(root), request_timeout_s=1, max_waiting_images=2,
        batch_wait_s=0,
    )  # fmt: skip
    with serving(options) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.endpoint, trust_env=False) as client:
        yield client


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The access log as documents, once there are so many: a line is written after its answer was sent."""
    caplog.set_level(logging.INFO, "tinyclip.access")

    def written(number: int) -> list[dict[str, Any]]:
        for _ in range(500):
            records = [record for record in caplog.records if record.name == "tinyclip.access"]
            if len(records) >= number:
                break
            time.sleep(0.01)
        assert len(records) == number
        return [json.loads(record.getMessage()) for record in records]

    return written


@pytest.fixture
def held(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The engine encodes no image until this is set."""
    go = threading.Event()
    engine = served.replica.models.own.engine
    encode = engine.encode_image
    monkeypatch.setattr(engine, "encode_image", lambda images: go.wait(20) and encode(images))
    yield go
    go.set()


def asking(http: httpx.Client, seed: int = 0, **headers: str) -> httpx.Response:
    image = base64.b64encode(encoded(random_image(seed))).decode()
    return http.post("/zero-shot", json={"image": image, "labels": [SECRET, "dog"]}, headers=headers)


class TestIds:
    def test_the_callers_id_is_kept(self, http: httpx.Client, lines: Lines) -> None:
        answer = asking(http, **{"X-Request-ID": "mine-7"})
        refused = http.post("/zero-shot", json={}, headers={"X-Request-ID": "mine-8"})

        assert answer.headers["x-request-id"] == "mine-7"
        assert refused.json()["request_id"] == refused.headers["x-request-id"] == "mine-8"
        assert [line["request_id"] for line in lines(2)] == ["mine-7", "mine-8"]

    def test_one_is_made_where_there_is_none(self, http: httpx.Client) -> None:
        ids = {asking(http).headers["x-request-id"] for _ in range(3)}

        assert len(ids) == 3
        assert all(id.startswith("req_") for id in ids)


class TestLimits:
    def test_too_slow_is_504_and_what_waits_is_dropped(self, http: httpx.Client, served: Served, held: threading.Event) -> None:
        answer = asking(http)

        assert answer.status_code == 504
        assert (answer.json()["code"], answer.json()["retryable"]) == ("timed_out", True)
        assert int(answer.headers["retry-after"]) >= 1
        assert served.replica.models.own.inference._images.waiting == 0
        held.set()
        assert asking(http).status_code == 200

    def test_too_many_are_429_and_the_others_are_answered(self, http: httpx.Client, held: threading.Event) -> None:
        with ThreadPoolExecutor(6) as pool:
            sent = [pool.submit(asking, http, seed) for seed in range(6)]
            for _ in range(100):
                if sum(one.done() for one in sent) == 4:
                    break
                time.sleep(0.005)
            held.set()
            answers = [one.result() for one in sent]

        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 4
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "busy")}
        assert all(answer.json()["retryable"] for answer in refused)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)

    def test_a_body_that_does_not_come_is_408(self, http: httpx.Client) -> None:
        def slowly() -> Iterator[bytes]:
            yield b'{"image": "'
            time.sleep(1.5)
            yield b'"}'

        answer = http.post("/zero-shot", content=slowly())

        assert (answer.status_code, answer.json()["code"]) == (408, "request_too_slow")

    async def test_a_client_that_leaves_frees_its_place(self, served: Served, held: threading.Event, lines: Lines) -> None:
        image = base64.b64encode(encoded(random_image(0))).decode()
        async with httpx.AsyncClient(base_url=served.endpoint, trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/embeddings", json={"input": image, "modality": "image"}, timeout=0.3)

        assert [line["status"] for line in lines(1)] in ([499], [504])
        assert served.replica.models.own.inference._images.waiting == 0


class TestFaults:
    def test_an_unforeseen_error_is_a_problem_without_a_traceback(
        self, http: httpx.Client, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(images: Any) -> Any:
            raise RuntimeError("a secret of the engine")

        monkeypatch.setattr(served.replica.models.own.engine, "encode_image", broken)

        answer = asking(http)

        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert "a secret of the engine" in caplog.text


class TestLog:
    def test_a_line_says_how_much_and_how_long_but_not_what(self, http: httpx.Client, lines: Lines) -> None:
        asking(http, Authorization="Bearer tc_hidden")
        http.post("/embeddings", json={"input": [SECRET, "b"]})

        zero_shot, embeddings = lines(2)
        assert (zero_shot["method"], zero_shot["route"], zero_shot["status"]) == ("POST", "/zero-shot", 200)
        assert (zero_shot["deployment"], zero_shot["model"]) == ("demo", "student@1")
        assert zero_shot["counts"] == {"bytes": zero_shot["counts"]["bytes"], "images": 1, "labels": 2}
        assert {"total", "body", "decode", "wait", "encode", "labels"} <= zero_shot["ms"].keys()
        assert zero_shot["ms"]["total"] >= zero_shot["ms"]["decode"] + zero_shot["ms"]["encode"] > 0
        assert embeddings["counts"]["texts"] == 2
        text = json.dumps(lines(2))
        assert SECRET not in text
        assert "tc_hidden" not in text

    def test_a_refusal_has_its_code_and_an_unknown_path_no_route(self, http: httpx.Client, lines: Lines) -> None:
        http.post("/zero-shot", json={"image": SECRET, "labels": ["a"]})
        http.get(f"/{SECRET}")
        http.get("/healthz")

        refused, unknown = lines(2)
        assert (refused["status"], refused["code"]) == (422, "invalid_input")
        assert (unknown["status"], unknown["route"]) == (404, "unmatched")
        assert SECRET not in json.dumps(lines(2))


def test_warm_labels_cost_next_to_nothing(http: httpx.Client, served: Served) -> None:
    """What the second request with the same labels computes of them: nothing."""
    labels = [f"label number {i}" for i in range(300)]
    image = base64.b64encode(encoded(random_image(0))).decode()
    calls: list[int] = []
    engine = served.replica.models.own.engine
    encode = engine.encode_text

    def counting(texts: Any) -> np.ndarray[Any, Any]:
        calls.append(len(texts))
        return encode(texts)

    engine.encode_text = counting  # type: ignore[method-assign]
    try:
        answers = [http.post("/zero-shot", json={"image": image, "labels": labels}) for _ in range(3)]
    finally:
        engine.encode_text = encode  # type: ignore[method-assign]

    assert sum(calls) == 300
    assert answers[0].json() == answers[1].json() == answers[2].json()

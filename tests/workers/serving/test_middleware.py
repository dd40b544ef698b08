"""The middleware around every request: ids, limits of time and number, internal errors and the access log."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.workers.student_server import Served, serving, serving_options
from tests.workers.students import base64_image

Lines = Callable[[int], list[dict[str, Any]]]

SECRET = "a label that must not be logged"


@pytest.fixture(scope="module")
def served(artifacts: Path) -> Iterator[Served]:
    with serving(serving_options(artifacts, max_waiting_images=2)) as served:
        yield served


@pytest.fixture
def short_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.replica.options, "request_timeout_s", 0.25)


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Wait for a number of access log lines and return them: a line is written after its answer was sent."""
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
def unblocked(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Block the engine's image encoder until this event is set."""
    event = threading.Event()
    engine = served.replica.models.own.engine
    encode = engine.encode_image
    monkeypatch.setattr(engine, "encode_image", lambda images: event.wait(20) and encode(images))
    yield event
    event.set()


def zero_shot(http: httpx.Client, seed: int = 0, **headers: str) -> httpx.Response:
    return http.post("/zero-shot", json={"image": base64_image(seed), "labels": [SECRET, "dog"]}, headers=headers)


class TestHost:
    """Without tokens a page of another site must not reach a deployment by a name that it resolves to this machine."""

    @pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/zero-shot"])
    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8322", "127.0.0.1.evil.example", "10.0.0.1:8", "", "x]::1"])
    def test_the_name_of_another_host_is_refused(self, http: httpx.Client, host: str, path: str) -> None:
        response = http.get(path, headers={"Host": host})

        assert (response.status_code, response.json()["code"]) == (403, "host_not_allowed")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8322", "127.0.0.1:9", "[::1]:8322", "app.localhost"])
    def test_every_name_of_this_machine_is_accepted(self, http: httpx.Client, host: str) -> None:
        assert http.get("/healthz", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"hosts": ["clip.example"]}, 200),
            ({"hosts": ["other.example"]}, 403),
            ({"hosts": None}, 200),
            ({"auth": "tokens"}, 200),
        ],
        ids=["its-own-url", "another-url", "behind-a-proxy", "tokens"],
    )
    def test_configured_names_are_accepted(
        self, served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], status: int
    ) -> None:
        for name, value in changes.items():
            monkeypatch.setattr(served.replica.options, name, value)

        assert http.get("/healthz", headers={"Host": "clip.example:8322"}).status_code == status


class TestIds:
    def test_the_clients_id_is_kept(self, http: httpx.Client, lines: Lines) -> None:
        answer = zero_shot(http, **{"X-Request-ID": "mine-7"})
        rejected = http.post("/zero-shot", json={}, headers={"X-Request-ID": "mine-8"})

        assert answer.headers["x-request-id"] == "mine-7"
        assert rejected.json()["request_id"] == rejected.headers["x-request-id"] == "mine-8"
        assert [line["request_id"] for line in lines(2)] == ["mine-7", "mine-8"]

    def test_an_id_is_generated_if_there_is_none(self, http: httpx.Client) -> None:
        ids = {zero_shot(http).headers["x-request-id"] for _ in range(3)}

        assert len(ids) == 3
        assert all(id.startswith("req_") for id in ids)


class TestLimits:
    def test_a_slow_request_is_504_and_its_waiting_items_are_dropped(
        self, http: httpx.Client, served: Served, unblocked: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(served.replica.options, "request_timeout_s", 0.25)
        answer = zero_shot(http)

        assert answer.status_code == 504
        assert (answer.json()["code"], answer.json()["retryable"]) == ("timed_out", True)
        assert int(answer.headers["retry-after"]) >= 1
        assert served.replica.models.own.inference._images.waiting == 0
        monkeypatch.setattr(served.replica.options, "request_timeout_s", 30)
        unblocked.set()
        assert zero_shot(http).status_code == 200

    def test_requests_above_the_limit_are_429_and_the_others_are_answered(
        self, http: httpx.Client, unblocked: threading.Event
    ) -> None:
        with ThreadPoolExecutor(6) as pool:
            sent = [pool.submit(zero_shot, http, seed) for seed in range(6)]
            for _ in range(100):
                if sum(one.done() for one in sent) == 4:
                    break
                time.sleep(0.005)
            unblocked.set()
            answers = [one.result() for one in sent]

        rejected = [answer for answer in answers if answer.status_code != 200]
        assert len(rejected) == 4
        assert {(answer.status_code, answer.json()["code"]) for answer in rejected} == {(429, "busy")}
        assert all(answer.json()["retryable"] for answer in rejected)
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in rejected)

    @pytest.mark.usefixtures("short_limit")
    def test_an_incomplete_body_is_408(self, http: httpx.Client) -> None:
        def slowly() -> Iterator[bytes]:
            yield b'{"image": "'
            time.sleep(0.4)
            yield b'"}'

        answer = http.post("/zero-shot", content=slowly())

        assert (answer.status_code, answer.json()["code"]) == (408, "request_too_slow")

    @pytest.mark.usefixtures("short_limit", "unblocked")
    async def test_a_client_that_disconnects_releases_its_place(self, served: Served, lines: Lines) -> None:
        async with httpx.AsyncClient(base_url=served.endpoint, trust_env=False, timeout=httpx.Timeout(10, read=0.1)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/embeddings", json={"input": base64_image(0), "modality": "image"})

        assert [line["status"] for line in lines(1)] in ([499], [504])
        assert served.replica.models.own.inference._images.waiting == 0


class TestInternalErrors:
    def test_an_unexpected_exception_is_a_problem_without_its_message(
        self, http: httpx.Client, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(images: Any) -> Any:
            raise RuntimeError("a secret of the engine")

        monkeypatch.setattr(served.replica.models.own.engine, "encode_image", broken)

        answer = zero_shot(http)

        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert "a secret of the engine" in caplog.text

    def test_control_characters_of_a_path_are_escaped_in_the_log(
        self, http: httpx.Client, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*arguments: Any) -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(served.replica.label_sets, "get", broken)

        answer = http.get("/label-sets/a%1B[2K%C2%85ERROR forged%E2%80%A8b")

        [message] = [record.getMessage() for record in caplog.records if record.getMessage().endswith("failed")]
        assert answer.status_code == 500
        assert message == r"GET '/demo/label-sets/a\x1b[2K\x85ERROR forged\u2028b' failed"


class TestLog:
    def test_a_line_has_sizes_and_times_but_no_content(self, http: httpx.Client, lines: Lines) -> None:
        zero_shot(http, Authorization="Bearer tc_hidden")
        http.post("/embeddings", json={"input": [SECRET, "b"]})

        classified, embedded = lines(2)
        assert (classified["method"], classified["route"], classified["status"]) == ("POST", "/zero-shot", 200)
        assert (classified["deployment"], classified["model"]) == ("demo", "student@1")
        assert classified["counts"] == {"bytes": classified["counts"]["bytes"], "images": 1, "labels": 2}
        assert {"total", "body", "decode", "wait", "encode", "labels"} <= classified["ms"].keys()
        assert classified["ms"]["total"] >= classified["ms"]["decode"] + classified["ms"]["encode"] > 0
        assert embedded["counts"]["texts"] == 2
        text = json.dumps(lines(2))
        assert SECRET not in text
        assert "tc_hidden" not in text

    def test_a_rejected_request_has_its_code_and_an_unknown_path_no_route(self, http: httpx.Client, lines: Lines) -> None:
        http.post("/zero-shot", json={"image": SECRET, "labels": ["a"]})
        http.get(f"/{SECRET}")
        http.get("/healthz")

        rejected, unknown = lines(2)
        assert (rejected["status"], rejected["code"]) == (422, "invalid_input")
        assert (unknown["status"], unknown["route"]) == (404, "unmatched")
        assert SECRET not in json.dumps(lines(2))

"""The sync and the async client ask the same and read the same."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import tinyclip
from tinyclip import AsyncClient, Call, Client, Retries
from tinyclip._resources.deployments import AsyncDeployments, Deployments
from tinyclip._resources.student import AsyncStudent, Student
from tinyclip.schemas import JobSpec

from tests.client.documents import JOB, JSON, job, page

Handler = Callable[[httpx.Request], httpx.Response]

DEPLOYMENT: JSON = {
    "name": "shapes", "model": "shapes@1", "state": "ready", "endpoint": "http://serve:8322/shapes",
    "replicas": {"min": 1, "max": 1}, "engine": "torch",
    "message": "", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z",
}


def client_of(handler: Handler) -> Client:
    return Client("http://server", "secret", retries=Retries(attempts=1), transport=httpx.MockTransport(handler))


def async_client_of(handler: Handler) -> AsyncClient:
    return AsyncClient("http://server", "secret", retries=Retries(attempts=1), transport=httpx.MockTransport(handler))


@pytest.mark.parametrize(
    ("sync", "asynchronous"), [(Client, AsyncClient), (Deployments, AsyncDeployments), (Student, AsyncStudent)]
)
def test_methods_that_are_declared_for_each_client_have_the_same_arguments(sync: type, asynchronous: type) -> None:
    def functions(kind: type) -> dict[str, list[str]]:
        return {name: list(inspect.signature(f).parameters) for name, f in inspect.getmembers(kind, inspect.isfunction)}

    def public(kind: type) -> dict[str, list[str]]:
        return {name: parameters for name, parameters in functions(kind).items() if not name.startswith("_")}

    assert public(sync) == public(asynchronous)
    assert public(sync)


def test_methods_that_are_declared_once_keep_their_signatures_and_docstrings() -> None:
    client, other = Client("http://server"), AsyncClient("http://server")

    for name in ("submit", "wait", "watch", "list"):
        method, async_method = getattr(client.jobs, name), getattr(other.jobs, name)
        assert inspect.signature(method).parameters == inspect.signature(async_method).parameters
        assert method.__doc__ == async_method.__doc__
    assert list(inspect.signature(client.jobs.submit).parameters) == ["spec", "idempotency_key"]
    assert (client.jobs.submit.__doc__ or "").startswith("Submit a spec.")


class TestSend:
    """A call that the SDK has no method for."""

    call = Call("GET", "/v1/version", lambda response: str(response.json()["version"]))

    @staticmethod
    def handle(request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.headers["authorization"]) == ("/v1/version", "Bearer secret")
        return httpx.Response(200, json={"version": "0.1.0"})

    def test_blocking(self) -> None:
        client = client_of(self.handle)

        assert client.send(self.call) == "0.1.0"
        value, response = client.send_with_response(self.call)
        assert (value, response.json()) == ("0.1.0", {"version": "0.1.0"})

    async def test_suspending(self) -> None:
        async with async_client_of(self.handle) as client:
            assert await client.send(self.call) == "0.1.0"
            assert (await client.send_with_response(self.call))[1].status_code == 200




def test_the_token_goes_with_every_call() -> None:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=JOB)

    client_of(handle).jobs.get("job_1")

    assert asked[0].headers["authorization"] == "Bearer secret"


def test_names_are_quoted_in_paths() -> None:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=JOB)

    client_of(handle).jobs.get("../tokens?x=1")

    assert asked[0].url.raw_path == b"/v1/jobs/..%2Ftokens%3Fx%3D1"


def test_a_spec_is_sent_as_written_and_a_schema_without_its_defaults() -> None:
    bodies: list[JSON] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(201, json=JOB)

    written = {"name": "shapes", "learning_rate": 3}
    client_of(handle).jobs.submit(written)
    client_of(handle).jobs.submit(JobSpec.model_validate(JOB["spec"]))

    assert bodies == [written, JOB["spec"]]


class TestPages:
    pages = {
        None: page(job(id="job_3"), job(id="job_2"), next_page_token="two"),
        "two": page(job(id="job_1")),
    }

    def handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url.params["state"] == "succeeded"
        assert request.url.params.get_list("label") == ["team:search", "x:y"]
        return httpx.Response(200, json=self.pages[request.url.params.get("page_token")])

    def test_a_list_reads_on_to_its_end(self) -> None:
        found = client_of(self.handle).jobs.list(state="succeeded", labels={"team": "search", "x": "y"})

        assert [each.id for each in found] == ["job_3", "job_2", "job_1"]

    async def test_a_sync_client_works_inside_of_an_event_loop_too(self) -> None:
        found = client_of(self.handle).jobs.list(state="succeeded", labels={"team": "search", "x": "y"})

        assert next(found).id == "job_3"
        found.close()  # type: ignore[attr-defined]

    async def test_a_list_reads_on_to_its_end_in_a_task(self) -> None:
        async with async_client_of(self.handle) as client:
            found = client.jobs.list(state="succeeded", labels={"team": "search", "x": "y"})

            assert [each.id async for each in found] == ["job_3", "job_2", "job_1"]


class Held:
    """A server that holds a question until the job differs from what the tag names."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str | None]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        tag = request.headers.get("if-none-match")
        self.asked.append((tag, request.url.params.get("wait")))
        if len(self.asked) == 2:
            return httpx.Response(304)
        state, next_tag = {None: ("queued", "1"), '"1"': ("running", "2"), '"2"': ("succeeded", "3")}[tag]
        return httpx.Response(200, json=job(state=state), headers={"ETag": f'"{next_tag}"'})


class TestWatch:
    @pytest.fixture
    def held(self, monkeypatch: pytest.MonkeyPatch) -> Held:
        monkeypatch.setattr("tinyclip._resources.jobs._BETWEEN_SNAPSHOTS_SECONDS", 0.0)
        return Held()

    def test_each_change_is_seen_once(self, held: Held) -> None:
        seen = [each.state for each in client_of(held.handle).jobs.watch("job_1")]

        assert seen == ["queued", "running", "succeeded"]
        assert held.asked == [(None, None), ('"1"', "25"), ('"1"', "25"), ('"2"', "25")]

    async def test_each_change_is_seen_once_in_a_task(self, held: Held) -> None:
        async with async_client_of(held.handle) as client:
            assert [each.state async for each in client.jobs.watch("job_1")] == ["queued", "running", "succeeded"]

    def test_wait_gives_the_end(self, held: Held) -> None:
        assert client_of(held.handle).jobs.wait("job_1").state == "succeeded"

    async def test_wait_gives_the_end_in_a_task(self, held: Held) -> None:
        async with async_client_of(held.handle) as client:
            assert (await client.jobs.wait("job_1")).state == "succeeded"

    def test_waiting_has_an_end_of_its_own(self) -> None:
        client = client_of(lambda request: httpx.Response(200, json=job(state="running")))

        with pytest.raises(tinyclip.WaitTimeout, match=r"job_1 has not ended after 0\.1 s; it goes on"):
            client.jobs.wait("job_1", timeout=0.1)


class TestQueries:
    @staticmethod
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

    def test_a_student_answers(self, tmp_path: Path) -> None:
        (tmp_path / "cat.png").write_bytes(b"\x00\x01\x02")
        student = client_of(self.handle).deployments.open("shapes")

        assert student.classify(tmp_path / "cat.png", ["cat", "dog"])[0].label == "cat"
        assert student.embed_texts(["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
        assert student.search("gallery", "a cat", top_k=3).hits[0].id == "7"

    def test_bad_images_of_a_request_may_be_skipped(self) -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.host == "server":
                return httpx.Response(200, json=DEPLOYMENT)
            assert json.loads(request.content)["on_error"] == "skip"
            return httpx.Response(200, json={"results": [None], "model": "shapes@1"})

        student = client_of(handle).deployments.open("shapes")

        assert student.zero_shot([b"x"], ["cat"], on_error="skip").results == [None]

    @staticmethod
    def embed_all_but_the_first(request: httpx.Request) -> httpx.Response:
        if request.url.host == "server":
            return httpx.Response(200, json=DEPLOYMENT)
        assert json.loads(request.content)["on_error"] == "skip"
        data = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": None}]
        errors = [{"pointer": "/input/0", "value": "eA==", "message": "is not an image"}]
        return httpx.Response(200, json={"data": data, "model": "shapes@1", "errors": errors})

    def test_bad_images_among_those_to_embed_may_be_skipped(self) -> None:
        student = client_of(self.embed_all_but_the_first).deployments.open("shapes")

        found = student.embed_images([b"x", b"y"], on_error="skip")

        assert found.vectors == [None, [0.0, 1.0]]
        assert [(error.pointer, error.message) for error in found.errors] == [("/input/0", "is not an image")]

    async def test_and_in_a_task(self) -> None:
        async with async_client_of(self.embed_all_but_the_first) as client:
            student = await client.deployments.open("shapes")

            assert (await student.embed_images([b"x", b"y"], on_error="skip")).vectors == [None, [0.0, 1.0]]

    async def test_a_student_answers_in_a_task(self) -> None:
        async with async_client_of(self.handle) as client:
            student = await client.deployments.open("shapes")

            assert (await student.classify(b"\x00\x01\x02", ["cat", "dog"]))[0].label == "cat"
            assert await student.embed_images([b"a", b"b"]) == [[1.0, 0.0], [0.0, 1.0]]
            assert (await student.search("gallery", "a cat", top_k=3)).hits[0].id == "7"

    def test_one_that_is_not_ready_says_what_it_is_doing(self) -> None:
        deploying = DEPLOYMENT | {"state": "deploying", "message": "loading weights"}

        with pytest.raises(tinyclip.Unavailable, match=r"shapes is deploying, not ready \(loading weights\); wait until"):
            client_of(lambda request: httpx.Response(200, json=deploying)).deployments.open("shapes")

    def test_an_image_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        student = client_of(self.handle).deployments.open("shapes")

        with pytest.raises(tinyclip.InputError, match=r"nowhere\.png: No such file or directory; name an image file"):
            student.classify(tmp_path / "nowhere.png", ["cat"])


def test_waiting_for_a_deployment_ends_when_it_is_ready_or_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip._http.methods.POLL_SECONDS", 0.0)
    states = iter(["deploying", "updating", "unhealthy"])
    client = client_of(lambda request: httpx.Response(200, json=DEPLOYMENT | {"state": next(states), "message": "no memory"}))

    assert client.deployments.wait("shapes").message == "no memory"

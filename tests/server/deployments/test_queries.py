"""Queries that the control plane forwards to a deployment."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tinyclip.schemas import Scope
from tinyclip_server.backends import serve_proxy

from tests.server.deployments.demo import DEMO, MODEL, put
from tests.server.fake_serve import FakeServe, reach
from tests.server.fakes import ScriptedServe
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start, eventually

QUERY = {"input": ["a cat"]}


@pytest.fixture
def serve() -> FakeServe:
    return FakeServe()


@pytest.fixture
async def service(start: Start, serve: FakeServe) -> Service:
    """A service whose deployment `demo` is ready."""
    return await ready(await start(ScriptedServe()), serve)


async def ready(service: Service, serve: FakeServe) -> Service:
    await service.register_model(MODEL)
    await put(service)
    await service.reconcile("deployments", 2)
    reach(service, serve)
    return service


class TestForwarding:
    @pytest.mark.parametrize(
        ("method", "path", "there"),
        [
            ("POST", "zero-shot", "/demo/zero-shot"),
            ("POST", "embeddings", "/demo/embeddings"),
            ("POST", "search", "/demo/search"),
            ("GET", "health", "/demo/healthz"),
            ("GET", "label-sets", "/demo/label-sets?page_size=50&page_token="),
            ("GET", "label-sets?page_token=a%26b%2F..", "/demo/label-sets?page_size=50&page_token=a%26b%2F.."),
            ("GET", "label-sets/colours", "/demo/label-sets/colours"),
        ],
    )
    async def test_these_routes(self, service: Service, serve: FakeServe, method: str, path: str, there: str) -> None:
        response = await service.http.request(method, f"{DEMO}/{path}", json=QUERY if method == "POST" else None)

        assert (response.status_code, response.json()["model"]) == (200, "m@1")
        [sent] = serve.requests
        assert (sent.method, str(sent.url)) == (method, service.settings.serve_base_url + there)

    @pytest.mark.parametrize(
        "path", ["healthz", "v1/embeddings", "", "label-sets/..%2f..%2fhealthz", "label-sets/a%2fb", "zero-shot/", "openapi.json"]
    )
    async def test_no_other(self, service: Service, serve: FakeServe, path: str) -> None:
        assert (await service.http.get(f"{DEMO}/{path}")).status_code in (404, 422)
        assert serve.requests == []

    async def test_pages_of_label_sets_are_as_large_as_a_deployment_allows(self, service: Service, serve: FakeServe) -> None:
        assert (await service.http.get(f"{DEMO}/label-sets?page_size=200")).status_code == 200
        assert (await service.http.get(f"{DEMO}/label-sets?page_size=201")).status_code == 422
        assert len(serve.requests) == 1

    async def test_the_body_is_not_touched(self, service: Service, serve: FakeServe) -> None:
        kind, body = "multipart/form-data; boundary=x", b"--x\r\n" + bytes(range(256)) * 100

        await service.http.post(f"{DEMO}/zero-shot", content=body, headers={"Content-Type": kind})

        assert serve.bodies == [body]
        headers = serve.requests[0].headers
        assert (headers["content-type"], headers["content-length"]) == (kind, str(len(body)))
        assert "transfer-encoding" not in headers

    async def test_only_some_headers_are_passed_on(self, service: Service, serve: FakeServe) -> None:
        given = {"Cookie": "a=b", "X-Request-Id": "mine", "Authorization": "Bearer x", "Accept-Encoding": "gzip"}

        response = await service.http.post(f"{DEMO}/embeddings", json=QUERY, headers=given)

        headers = serve.requests[0].headers
        assert (headers["authorization"], headers["x-request-id"], headers["accept-encoding"]) == ("Bearer x", "mine", "gzip")
        assert "cookie" not in headers
        assert response.headers.get_list("x-request-id") == ["mine"]

    async def test_problems_of_a_replica_are_passed_on(self, service: Service, serve: FakeServe) -> None:
        problem = {"code": "busy", "status": 429, "title": "Too many requests"}
        kind = {"Content-Type": "application/problem+json", "Retry-After": "2", "Set-Cookie": "a=b"}
        serve.answer = lambda: httpx.Response(429, json=problem, headers=kind)

        response = await service.http.post(f"{DEMO}/embeddings", json=QUERY)

        assert (response.status_code, response.json(), response.headers["retry-after"]) == (429, problem, "2")
        assert response.headers["content-type"] == "application/problem+json"
        assert "set-cookie" not in response.headers

    @pytest.mark.parametrize(
        ("status", "expected", "code"),
        [(404, 503, "serve_unavailable"), (503, 503, "serve_unavailable"), (302, 503, "serve_unavailable"),
         (429, 429, "busy"), (408, 504, "timed_out"), (413, 413, "too_large")],
    )  # fmt: skip
    async def test_errors_of_the_proxy_become_problems(
        self, service: Service, serve: FakeServe, status: int, expected: int, code: str
    ) -> None:
        serve.answer = lambda: httpx.Response(status, text="<html>", headers={"Location": "http://elsewhere"})

        response = await service.http.post(f"{DEMO}/embeddings", json=QUERY)

        assert (response.status_code, response.json()["code"]) == (expected, code)
        assert len(serve.requests) == 1


class TestLimits:
    async def test_bodies_of_some_mebibytes_are_accepted(self, service: Service, serve: FakeServe) -> None:
        response = await service.http.post(f"{DEMO}/embeddings", content=bytes(9 << 20))

        assert (response.status_code, len(serve.bodies[0])) == (200, 9 << 20)

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_larger_ones_than_a_replica_accepts_are_refused(
        self, service: Service, monkeypatch: pytest.MonkeyPatch, chunked: bool
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.access.MAX_QUERY_BYTES", 1000)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield bytes(500)

        response = await service.http.post(f"{DEMO}/embeddings", content=chunks() if chunked else bytes(1500))

        assert (response.status_code, response.json()["code"]) == (413, "too_large")

    async def test_too_many_at_once_are_refused(
        self, service: Service, serve: FakeServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_proxy, "PROJECT_AT_ONCE", 2)
        serve.held = asyncio.Event()
        running = [asyncio.create_task(service.http.post(f"{DEMO}/embeddings", json=QUERY)) for _ in range(2)]
        await eventually(lambda: _is(len(serve.requests) == 2))

        refused = await service.http.post(f"{DEMO}/embeddings", json=QUERY)
        serve.held.set()

        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_queries")
        assert [(await each).status_code for each in running] == [200, 200]
        assert (await service.http.post(f"{DEMO}/embeddings", json=QUERY)).status_code == 200

    async def test_a_deployment_that_does_not_answer_in_time(
        self, service: Service, serve: FakeServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_proxy, "ANSWER_SECONDS", 0.01)
        serve.held = asyncio.Event()

        response = await service.http.post(f"{DEMO}/embeddings", json=QUERY)

        assert (response.status_code, response.json()["code"]) == (504, "timed_out")

    async def test_a_client_that_disconnects_ends_the_query(self, service: Service, serve: FakeServe) -> None:
        serve.held = asyncio.Event()
        gone = asyncio.Event()
        scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": f"{DEMO}/embeddings", "raw_path": b"", "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "scheme": "http",
            "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        parts: list[dict[str, Any]] = [{"type": "http.request", "body": b"{}", "more_body": False}]

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            return None

        query = asyncio.create_task(service.app(scope, receive, send))  # type: ignore[arg-type]
        await eventually(lambda: _is(len(serve.bodies) == 1))
        gone.set()
        await query

        assert serve.cancelled == 1


class TestAvailability:
    async def test_serve_that_cannot_be_reached(self, service: Service, serve: FakeServe) -> None:
        def refuse() -> httpx.Response:
            raise httpx.ConnectError("connection refused")

        serve.answer = refuse

        response = await service.http.post(f"{DEMO}/embeddings", json=QUERY)

        assert (response.status_code, response.json()["code"]) == (503, "serve_unavailable")
        assert (response.headers["retry-after"], response.json()["retryable"]) == ("2", True)

    async def test_a_deployment_that_does_not_exist(self, service: Service) -> None:
        response = await service.http.post("/v1/deployments/nothing/embeddings", json=QUERY)

        assert (response.status_code, response.json()["code"]) == (404, "no_such_deployment")

    async def test_one_that_is_not_ready_gets_no_query(self, service: Service, serve: FakeServe) -> None:
        await put(service, "/v1/deployments/other")

        response = await service.http.post("/v1/deployments/other/embeddings", json=QUERY)

        assert (response.status_code, response.json()["code"]) == (409, "deployment_not_ready")
        assert serve.requests == []


class TestAccess:
    async def test_queries_need_the_scope_infer(self, start: Start, serve: FakeServe) -> None:
        await ready(await start(ScriptedServe()), serve)
        guarded = await start(ScriptedServe(), auth="tokens")
        reach(guarded, serve)
        infer, write = [await token(guarded, scope) for scope in (Scope.INFER, Scope.WRITE)]
        other = await token(guarded, Scope.INFER, project="other")

        path = f"{DEMO}/embeddings"
        statuses = {
            secret: (await guarded.http.post(path, json=QUERY, headers=bearer(secret))).status_code
            for secret in (infer, write, other)
        }

        assert statuses == {infer: 200, write: 403, other: 404}
        assert [request.headers["authorization"] for request in serve.requests] == [f"Bearer {infer}"]
        assert (await guarded.http.get(f"{DEMO}/health%0A", headers=bearer(write))).status_code == 403

    async def test_actions_follow_scopes_and_state(self, start: Start, serve: FakeServe) -> None:
        service = await ready(await start(ScriptedServe()), serve)
        guarded = await start(ScriptedServe(), auth="tokens")

        async def actions(*scopes: Scope) -> list[str]:
            headers = bearer(await token(guarded, *scopes))
            return list((await guarded.http.get(DEMO, headers=headers)).json()["actions"])

        assert await actions(Scope.READ) == []
        assert await actions(Scope.READ, Scope.INFER) == ["query"]
        assert await actions(Scope.WRITE) == ["update", "delete"]
        assert await actions(Scope.ADMIN) == ["update", "delete", "query"]
        await service.http.delete(DEMO)
        assert await actions(Scope.ADMIN) == []


async def _is(condition: bool) -> bool:
    return condition

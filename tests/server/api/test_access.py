"""The gate: who gets in, where, and how often; walked over every route there is."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.responses import StreamingResponse
from tinyclip.schemas import Scope
from tinyclip.token_format import new_token
from tinyclip_server.api.access import OPEN_PATHS, scope_for

from tests.server.documents import spec
from tests.server.guarded import ALL_BUT_METRICS, bearer, every_request, every_route, guarded, token
from tests.server.service import Service, Start

__all__ = ["guarded"]


class TestEveryRoute:
    async def test_the_walk_sees_the_routes(self, guarded: Service) -> None:
        documented = (await guarded.http.get("/openapi.json")).json()["paths"]

        walked = {(method.lower(), path) for method, path in every_request(guarded.app)}
        named = {(method, re.sub(r"\{[^}]*\}", "nobody", path)) for path, methods in documented.items() for method in methods}

        assert named <= walked
        assert len(named) > 30

    async def test_none_answers_without_a_token_but_the_open_ones(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 10_000)
        guarded = await start(auth="tokens")

        for method, path in every_request(guarded.app):
            answer = await guarded.http.request(method, path)

            expected_open = path in {"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}
            assert (answer.status_code == 401) is not expected_open, (method, path, answer.status_code)

    async def test_none_answers_a_token_with_too_small_a_scope(self, guarded: Service) -> None:
        for method, path in every_request(guarded.app):
            needed = scope_for(method, path)
            if path in OPEN_PATHS or needed is None:
                continue
            small = [scope for scope in Scope if not needed.is_granted_by([scope])]
            answer = await guarded.http.request(method, path, headers=bearer(await token(guarded, *small)))

            assert (answer.status_code, small != []) == (403, True), (method, path, answer.text)

    async def test_a_route_that_is_added_later_is_guarded_too(self, guarded: Service) -> None:
        @guarded.app.post("/later")
        async def later() -> str:
            return "in"

        assert (await guarded.http.post("/later")).status_code == 401
        assert (await guarded.http.post("/later", headers=bearer(await token(guarded, Scope.READ)))).status_code == 403
        assert (await guarded.http.post("/later", headers=bearer(await token(guarded, Scope.WRITE)))).json() == "in"

    async def test_paths_that_nobody_routes_are_no_exception(self, guarded: Service) -> None:
        for path in ("/", "/v1", "/v1/nothing", "/livez/", "/livez/../v1/jobs", "/livez%3f", "//livez"):
            assert (await guarded.http.get(path)).status_code == 401, path

    async def test_a_host_header_opens_nothing(self, guarded: Service) -> None:
        answer = await guarded.http.get("/v1/jobs", headers={"Host": "server/livez?"})

        assert answer.status_code == 401


class TestProjects:
    async def test_what_another_project_has_is_not_there(self, start: Start) -> None:
        open_service = await start()
        worker = await open_service.running(name="emoji")
        worker.succeed()
        await open_service.tick()
        for path, body in (
            ("/v1/deployments/emoji", {"model": "emoji@1"}),
            ("/v1/indexes/gallery", {"model": "emoji@1", "source": {"shards": __file__}}),
            ("/v1/models/emoji/aliases/best", {"version": 1}),
        ):
            assert (await open_service.http.put(path, json=body)).is_success
        guarded = await start(auth="tokens", requests_per_minute=100_000)
        mine = bearer(await token(guarded, *ALL_BUT_METRICS))
        theirs = bearer(await token(guarded, *ALL_BUT_METRICS, project="other"))
        token_id = (await guarded.http.get("/v1/me", headers=mine)).json()["token"]["id"]
        names = {
            "job_id": worker.job, "token_id": token_id, "name": "emoji", "v": "1", "version": "1", "alias": "best",
            "path": "model.json", "index": "0", "export": "onnx",
        }  # fmt: skip
        bodies: dict[str, Any] = {"PATCH": {"priority": 1}, "PUT": {"version": 1}, "POST": {}}
        special = {"items": {"items": [{"id": "a", "text": "b"}]}, "exports": {"formats": ["onnx"]}}

        walked = 0
        for method, pattern in every_route(guarded.app):
            path = pattern.replace("/indexes/{name}", "/indexes/gallery")
            creates = method == "PUT" and "alias" not in path  # a name is taken or it is free, whoever asks
            if creates or path == pattern.partition("{")[0]:
                continue
            path = re.sub(r"\{(\w+)[^}]*\}", lambda found: names.get(found[1], "nobody"), path)
            body = special.get(path.rpartition("/")[2], bodies.get(method)) if method == "POST" else bodies.get(method)
            answer = await guarded.http.request(method, path, headers=theirs, json=body)
            assert answer.status_code == 404, (method, path, answer.status_code, answer.text)
            walked += 1
        assert walked > 20
        for path in ("/v1/jobs", "/v1/models", "/v1/deployments", "/v1/indexes"):
            assert (await guarded.http.get(path, headers=theirs)).json()["items"] == [], path
            assert len((await guarded.http.get(path, headers=mine)).json()["items"]) == 1, path

    async def test_names_that_another_project_has_are_taken(self, guarded: Service) -> None:
        mine, theirs = [bearer(await token(guarded, Scope.WRITE, project=name)) for name in ("mine", "theirs")]
        first = await guarded.http.post("/v1/jobs", json=spec(name="emoji"), headers=mine)
        second = await guarded.http.post("/v1/jobs", json=spec(name="emoji"), headers=theirs)

        assert (first.status_code, second.status_code, second.json()["code"]) == (201, 409, "name_taken")


class TestWithoutTokens:
    """Anybody on this machine may ask, but not a web page in a browser on it."""

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "10.0.0.1:8", "", "x]::1"])
    async def test_a_name_that_is_not_this_machine_is_refused(self, service: Service, host: str) -> None:
        answer = await service.http.get("/v1/jobs", headers={"Host": host})

        assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")

    @pytest.mark.parametrize("host", ["localhost", "localhost:8321", "127.0.0.1:9", "[::1]:8321", "app.localhost"])
    async def test_this_machine_by_any_name_is_not(self, service: Service, host: str) -> None:
        assert (await service.http.get("/v1/jobs", headers={"Host": host})).status_code == 200

    async def test_behind_a_proxy_any_name_will_do(self, start: Start) -> None:
        service = await start(allow_public=True)

        assert (await service.http.get("/v1/jobs", headers={"Host": "clip.example"})).status_code == 200


class TestStreams:
    async def test_a_stream_ends_soon_after_its_token_was_revoked(
        self, guarded: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.access.RECHECK_SECONDS", 0.2)
        watcher, admin = bearer(await token(guarded, Scope.READ)), bearer(await token(guarded, Scope.ADMIN))
        me = (await guarded.http.get("/v1/me", headers=watcher)).json()

        @guarded.app.get("/endless")
        async def endless() -> StreamingResponse:
            async def lines() -> AsyncIterator[bytes]:
                for number in range(200):
                    yield b"%d\n" % number
                    if number == 2:
                        await guarded.http.delete(f"/v1/tokens/{me['token']['id']}", headers=admin)
                    await asyncio.sleep(0.02)

            return StreamingResponse(lines())

        answer = await guarded.http.get("/endless", headers=watcher)

        got = answer.text.splitlines()
        assert got[:3] == ["0", "1", "2"]
        assert len(got) < 60


class TestSecretsStaySecret:
    async def test_no_log_no_event_no_problem_has_one(self, guarded: Service, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        secret = await token(guarded, Scope.WRITE)
        wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        answers = [
            await guarded.http.post("/v1/jobs", json=spec(), headers=bearer(secret)),
            await guarded.http.get("/v1/jobs", headers=bearer(wrong)),
            await guarded.http.get("/v1/tokens", headers=bearer(secret)),
            await guarded.http.post("/v1/jobs", json={"nam": 1}, headers=bearer(secret)),
            await guarded.http.post("/v1/jobs", content="{", headers={**bearer(secret), "content-type": "application/json"}),
        ]
        job = answers[0].json()["id"]
        answers.append(await guarded.http.get(f"/v1/jobs/{job}/events", headers=bearer(secret)))

        said = "\n".join([answer.text for answer in answers] + [str(record.__dict__) for record in caplog.records])
        for each in (secret, wrong, secret.removeprefix("tc_")[4:]):
            assert each not in said


class TestLimits:
    async def test_a_body_that_says_it_is_too_large_is_not_read(self, start: Start) -> None:
        service = await start(max_body_bytes=2000)

        answer = await service.http.post("/v1/jobs", content=b" " * 2001, headers={"content-type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "2,000 bytes" in answer.json()["detail"]

    async def test_one_that_does_not_say_so_is_cut_off(self, start: Start) -> None:
        service = await start(max_body_bytes=2000)
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            while sent < 1_000_000:
                sent += 500
                yield b" " * 500

        answer = await service.http.post("/v1/jobs", content=endless(), headers={"content-type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert sent < 10_000

    async def test_a_token_has_so_many_requests_a_minute(self, start: Start) -> None:
        service = await start(auth="tokens", requests_per_minute=3)
        busy, idle = [bearer(await token(service, Scope.READ)) for _ in range(2)]

        answers = [await service.http.get("/v1/jobs", headers=busy) for _ in range(4)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["retryable"] is True
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        assert (await service.http.get("/v1/jobs", headers=idle)).status_code == 200
        assert (await service.http.get("/livez")).status_code == 200

    async def test_an_address_has_so_many_bad_tokens_a_minute(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 2)
        service = await start(auth="tokens")
        good = bearer(await token(service, Scope.READ))

        answers = [await service.http.get("/v1/jobs", headers=bearer(new_token())) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert (await service.http.get("/v1/jobs", headers=good)).status_code == 200

    @pytest.mark.parametrize("size", [0, 501, -1, 10**30, "all"])
    async def test_pages_are_bounded_everywhere(self, service: Service, size: object) -> None:
        for path in ("/v1/jobs", "/v1/models", "/v1/deployments", "/v1/indexes", "/v1/tokens"):
            answer: httpx.Response = await service.http.get(path, params={"page_size": str(size)})
            assert answer.status_code == 422, path

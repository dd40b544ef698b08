"""The access gate: tokens, scopes and limits, checked on every route."""

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
from tinyclip_server.api.access import OPEN_PATHS, infer_suffices, scope_for
from tinyclip_server.database.engine import Database
from tinyclip_server.http.callers import counted_address

from tests.server.documents import spec
from tests.server.guarded import ALL_BUT_METRICS, bearer, every_request, every_route, guarded, token
from tests.server.service import Service, Start

__all__ = ["guarded"]


class TestEveryRoute:
    async def test_every_documented_route_is_checked(self, guarded: Service) -> None:
        paths = (await guarded.http.get("/openapi.json")).json()["paths"]

        checked = {(method.lower(), path) for method, path in every_request(guarded.app)}
        documented = {(method, re.sub(r"\{[^}]*\}", "nobody", path)) for path, methods in paths.items() for method in methods}

        assert documented <= checked
        assert len(documented) > 30

    async def test_only_the_open_ones_answer_without_a_token(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 10_000)
        guarded = await start(auth="tokens")

        for method, path in every_request(guarded.app):
            response = await guarded.http.request(method, path)

            expected_open = path in {"/livez", "/readyz", "/openapi.json"}
            assert (response.status_code == 401) is not expected_open, (method, path, response.status_code)

    async def test_none_answers_a_token_without_the_scope(self, guarded: Service) -> None:
        for method, path in every_request(guarded.app):
            needed = scope_for(method, path)
            if path in OPEN_PATHS or needed is None:
                continue
            enough = [needed, *([Scope.INFER] if infer_suffices(method, path) else [])]
            insufficient = [scope for scope in Scope if not any(each.is_granted_by([scope]) for each in enough)]
            response = await guarded.http.request(method, path, headers=bearer(await token(guarded, *insufficient)))

            assert (response.status_code, insufficient != []) == (403, True), (method, path, response.text)

    async def test_items_of_an_index_are_also_for_those_who_may_search_it(self, guarded: Service) -> None:
        infer = bearer(await token(guarded, Scope.INFER))

        for path in ("/v1/indexes/gallery/items/a/b", "/v1/indexes/gallery/items/a/thumbnail"):
            assert (await guarded.http.get(path, headers=infer)).status_code == 404, path
            assert (await guarded.http.delete(path, headers=infer)).status_code == 403, path
        for path in ("/v1/indexes", "/v1/indexes/gallery", "/v1/indexes/gallery/items/", "/v1/jobs"):
            assert (await guarded.http.get(path, headers=infer)).status_code == 403, path

    async def test_a_new_route_is_protected(self, guarded: Service) -> None:
        @guarded.app.post("/later")
        async def later() -> str:
            return "in"

        assert (await guarded.http.post("/later")).status_code == 401
        assert (await guarded.http.post("/later", headers=bearer(await token(guarded, Scope.READ)))).status_code == 403
        assert (await guarded.http.post("/later", headers=bearer(await token(guarded, Scope.WRITE)))).json() == "in"

    async def test_unknown_paths_are_protected(self, guarded: Service) -> None:
        for path in ("/v1", "/v1/nothing", "/livez/", "/livez/../v1/jobs"):
            assert (await guarded.http.get(path)).status_code == 401, path
        for path in ("/later", "/livez%3f", "/V1/jobs"):
            assert (await guarded.http.get(path)).status_code == 404, path
            assert (await guarded.http.post(path)).status_code == 401, path

    async def test_a_new_route_outside_of_the_api_is_never_reached_without_a_token(self, guarded: Service) -> None:
        @guarded.app.get("/later")
        async def later() -> str:
            return "in"

        assert (await guarded.http.get("/later")).status_code == 404

    async def test_a_host_header_gives_no_access(self, guarded: Service) -> None:
        response = await guarded.http.get("/v1/jobs", headers={"Host": "server/livez?"})

        assert response.status_code == 401


class TestProjects:
    async def test_resources_of_another_project_are_not_found(self, start: Start) -> None:
        open_service = await start()
        job = await open_service.succeeded("emoji")
        for path, body in (
            ("/v1/deployments/emoji", {"model": "emoji@1"}),
            ("/v1/indexes/gallery", {"model": "emoji@1", "source": {"shards": __file__}}),
            ("/v1/datasets/pairs", {"source": {"shards": __file__}}),
            ("/v1/models/emoji/aliases/best", {"version": 1}),
        ):
            assert (await open_service.http.put(path, json=body)).is_success
        tasks = {"tasks": [{"name": "pets", "kind": "zero_shot", "shards": "/data/wds_pets"}]}
        sought = {"spec": spec(name="emoji", evaluation=tasks), "vary": {"seed": [1]}}
        search = await open_service.call("POST", "/v1/searches", sought, status=201)
        guarded = await start(auth="tokens", requests_per_minute=100_000)
        mine = bearer(await token(guarded, *ALL_BUT_METRICS))
        theirs = bearer(await token(guarded, *ALL_BUT_METRICS, project="other"))
        token_id = (await guarded.http.get("/v1/me", headers=mine)).json()["token"]["id"]
        names = {
            "job_id": job["id"], "token_id": token_id, "name": "emoji", "v": "1", "version": "1", "alias": "best",
            "path": "model.json", "index": "0", "export": "onnx", "number": "0", "search_id": search["id"],
        }  # fmt: skip
        bodies: dict[str, Any] = {"PATCH": {"priority": 1}, "PUT": {"version": 1}, "POST": {}}
        special: dict[str, Any] = {
            "items": {"items": [{"id": "a", "text": "b"}]}, "exports": {"formats": ["onnx"]},
            "reinforcements": {"teacher": {"model": "ViT-B-32", "pretrained": "openai"}},
        }  # fmt: skip

        checked = 0
        for method, pattern in every_route(guarded.app):
            path = pattern.replace("/indexes/{name}", "/indexes/gallery").replace("/datasets/{name}", "/datasets/pairs")
            creates = method == "PUT" and "alias" not in path  # names are shared by all projects
            if creates or path == pattern.partition("{")[0]:
                continue
            path = re.sub(r"\{(\w+)[^}]*\}", lambda found: names.get(found[1], "nobody"), path)
            body = special.get(path.rpartition("/")[2], bodies.get(method)) if method == "POST" else bodies.get(method)
            response = await guarded.http.request(method, path, headers=theirs, json=body)
            assert response.status_code == 404, (method, path, response.status_code, response.text)
            checked += 1
        assert checked > 20
        for path in ("/v1/jobs", "/v1/models", "/v1/deployments", "/v1/indexes", "/v1/datasets", "/v1/searches"):
            assert (await guarded.http.get(path, headers=theirs)).json()["items"] == [], path
            assert len((await guarded.http.get(path, headers=mine)).json()["items"]) == 1, path

    async def test_names_of_another_project_are_taken(self, guarded: Service) -> None:
        mine, theirs = [bearer(await token(guarded, Scope.WRITE, project=name)) for name in ("mine", "theirs")]
        first = await guarded.http.post("/v1/jobs", json=spec(name="emoji"), headers=mine)
        second = await guarded.http.post("/v1/jobs", json=spec(name="emoji"), headers=theirs)

        assert (first.status_code, second.status_code, second.json()["code"]) == (201, 409, "name_taken")


class TestWithoutTokens:
    """Requests from this machine are accepted, unless a web page sends them from its browser."""

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "10.0.0.1:8", "", "x]::1"])
    async def test_the_name_of_another_host_is_refused(self, service: Service, host: str) -> None:
        response = await service.http.get("/v1/jobs", headers={"Host": host})

        assert (response.status_code, response.json()["code"]) == (403, "host_not_allowed")

    @pytest.mark.parametrize("host", ["localhost", "localhost:8321", "127.0.0.1:9", "[::1]:8321", "app.localhost"])
    async def test_every_name_of_this_machine_is_accepted(self, service: Service, host: str) -> None:
        assert (await service.http.get("/v1/jobs", headers={"Host": host})).status_code == 200

    async def test_behind_a_proxy_every_name_is_accepted(self, start: Start) -> None:
        service = await start(allow_public=True)

        assert (await service.http.get("/v1/jobs", headers={"Host": "clip.example"})).status_code == 200


class TestStreams:
    async def test_a_stream_ends_soon_after_its_token_was_revoked(
        self, guarded: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.access.RECHECK_SECONDS", 0.05)
        watcher, admin = bearer(await token(guarded, Scope.READ)), bearer(await token(guarded, Scope.ADMIN))
        me = (await guarded.http.get("/v1/me", headers=watcher)).json()

        @guarded.app.get("/v1/endless")
        async def endless() -> StreamingResponse:
            async def lines() -> AsyncIterator[bytes]:
                for number in range(200):
                    yield b"%d\n" % number
                    if number == 2:
                        await guarded.http.delete(f"/v1/tokens/{me['token']['id']}", headers=admin)
                    await asyncio.sleep(0.005)

            return StreamingResponse(lines())

        response = await guarded.http.get("/v1/endless", headers=watcher)

        lines_received = response.text.splitlines()
        assert lines_received[:3] == ["0", "1", "2"]
        assert len(lines_received) < 60


class TestSecrets:
    async def test_no_log_event_or_problem_contains_one(self, guarded: Service, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        secret = await token(guarded, Scope.WRITE)
        wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        responses = [
            await guarded.http.post("/v1/jobs", json=spec(), headers=bearer(secret)),
            await guarded.http.get("/v1/jobs", headers=bearer(wrong)),
            await guarded.http.get("/v1/tokens", headers=bearer(secret)),
            await guarded.http.post("/v1/jobs", json={"nam": 1}, headers=bearer(secret)),
            await guarded.http.post("/v1/jobs", content="{", headers={**bearer(secret), "content-type": "application/json"}),
        ]
        job = responses[0].json()["id"]
        responses.append(await guarded.http.get(f"/v1/jobs/{job}/events", headers=bearer(secret)))

        output = "\n".join([response.text for response in responses] + [str(record.__dict__) for record in caplog.records])
        for each in (secret, wrong, secret.removeprefix("tc_")[4:]):
            assert each not in output


class TestLimits:
    async def test_a_body_whose_announced_size_is_too_large_is_not_read(self, start: Start) -> None:
        service = await start(max_body_bytes=2000)

        response = await service.http.post("/v1/jobs", content=b" " * 2001, headers={"content-type": "application/json"})

        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert "2,000 bytes" in response.json()["detail"]

    async def test_a_body_without_an_announced_size_is_cut_off(self, start: Start) -> None:
        service = await start(max_body_bytes=2000)
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            while sent < 1_000_000:
                sent += 500
                yield b" " * 500

        response = await service.http.post("/v1/jobs", content=endless(), headers={"content-type": "application/json"})

        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert sent < 10_000

    async def test_requests_of_a_token_are_limited(self, start: Start) -> None:
        service = await start(auth="tokens", requests_per_minute=3)
        busy, idle = [bearer(await token(service, Scope.READ)) for _ in range(2)]

        responses = [await service.http.get("/v1/jobs", headers=busy) for _ in range(4)]

        assert [response.status_code for response in responses] == [200, 200, 200, 429]
        assert responses[-1].json()["retryable"] is True
        assert 1 <= int(responses[-1].headers["retry-after"]) <= 61
        assert (await service.http.get("/v1/jobs", headers=idle)).status_code == 200
        assert (await service.http.get("/livez")).status_code == 200

    async def test_invalid_tokens_of_an_address_are_limited(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 2)
        service = await start(auth="tokens")
        good = bearer(await token(service, Scope.READ))
        await service.http.get("/v1/jobs", headers=good)

        responses = [await service.http.get("/v1/jobs", headers=bearer(new_token())) for _ in range(3)]

        assert [response.status_code for response in responses] == [401, 401, 429]
        assert (await service.http.get("/v1/jobs", headers=good)).status_code == 200

    async def test_the_addresses_of_an_ipv6_network_are_counted_together(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 2)
        service = await start(auth="tokens")

        async def status_from(address: str) -> int:
            transport = httpx.ASGITransport(service.app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return (await http.get("/v1/jobs", headers=bearer(new_token()))).status_code

        assert [await status_from(f"2001:db8:0:7::{host}") for host in ("1", "2", "ffff:1", "3")] == [401, 401, 429, 429]
        assert await status_from("2001:db8:0:8::1") == 401

    @pytest.mark.parametrize(
        ("host", "counted"),
        [
            ("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
            ("::ffff:192.0.2.7", "192.0.2.7"), ("testclient", "testclient"),
        ],
    )
    def test_counted_addresses(self, host: str, counted: str) -> None:
        assert counted_address(host) == counted

    async def test_above_a_limit_the_database_is_not_read(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 1)
        service = await start(auth="tokens", requests_per_minute=1)
        good, bad = bearer(await token(service, Scope.READ)), bearer(new_token())
        for headers in (good, bad):
            await service.http.get("/v1/jobs", headers=headers)
        monkeypatch.setattr(Database, "read", lambda self: pytest.fail("the database is read"))

        responses = [await service.http.get("/v1/jobs", headers=headers) for headers in (good, bad, bearer(new_token()))]

        assert [response.status_code for response in responses] == [429, 429, 429]
        assert all(int(response.headers["retry-after"]) >= 1 for response in responses)

    async def test_a_json_body_of_an_import_is_limited_like_any_other(self, start: Start) -> None:
        service = await start(max_body_bytes=1 << 20)
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1 << 16
                yield b" " * (1 << 16)

        response = await service.http.post("/v1/models/import", content=endless(), headers={"content-type": "application/json"})

        assert (response.status_code, response.json()["code"]) == (413, "too_large")
        assert sent < 2 << 20

    async def test_the_memory_for_all_bodies_is_limited(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_server.api.access.BODIES_AT_ONCE", 1)
        service = await start(max_body_bytes=1 << 20)
        half_sent, rest = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b" " * 700_000
            half_sent.set()
            await rest.wait()

        headers = {"content-type": "application/json"}
        first = asyncio.create_task(service.http.post("/v1/jobs", content=slowly(), headers=headers))
        await half_sent.wait()

        refused = await service.http.post("/v1/jobs", content=b" " * 700_000, headers=headers)
        rest.set()
        await first
        accepted = await service.http.post("/v1/jobs", content=b" " * 700_000, headers=headers)

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert accepted.json()["code"] == "malformed_json"

    async def test_one_project_cannot_fill_the_memory_for_the_bodies_of_all(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tinyclip_server.api.access.BODIES_AT_ONCE", 1)
        service = await start(auth="tokens", max_body_bytes=1 << 20)
        one, other = [bearer(await token(service, Scope.WRITE, project=name)) for name in ("one", "other")]
        half_sent, rest = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b" " * 500_000
            half_sent.set()
            await rest.wait()

        kind = {"content-type": "application/json"}
        first = asyncio.create_task(service.http.post("/v1/jobs", content=slowly(), headers=one | kind))
        await half_sent.wait()

        refused, accepted = [
            await service.http.post("/v1/jobs", content=b" " * 500_000, headers=headers | kind) for headers in (one, other)
        ]
        rest.set()
        await first
        later = await service.http.post("/v1/jobs", content=b" " * 500_000, headers=one | kind)

        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (accepted.json()["code"], later.json()["code"]) == ("malformed_json", "malformed_json")

    @pytest.mark.parametrize("size", [0, 501, -1, 10**30, "all"])
    async def test_page_sizes_are_limited(self, service: Service, size: object) -> None:
        for path in ("/v1/jobs", "/v1/models", "/v1/deployments", "/v1/indexes", "/v1/tokens"):
            response: httpx.Response = await service.http.get(path, params={"page_size": str(size)})
            assert response.status_code == 422, path

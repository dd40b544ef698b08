"""Every response to hostile requests is declared in the OpenAPI document, none is a 5xx, and without a token it is 401."""

import asyncio
import collections
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tinyclip.schemas import Scope

from tests.server.datasets.pairs import EMOJI, register
from tests.server.documents import spec
from tests.server.events import log_line
from tests.server.fake_serve import AnsweringServe, reach
from tests.server.fakes import ScriptedServe
from tests.server.guarded import bearer, every_request, token
from tests.server.hostile import Target, check_response, page_token, targets
from tests.server.reinforcements.test_reinforcements import reinforced
from tests.server.service import Service, Start, on_both_databases

OPEN = {"GET /livez", "GET /readyz"}
SLOW_SECONDS = 20.0
"""The time of one response; a hang is a failure too."""
TASK = {"name": "a", "kind": "retrieval", "shards": "/data/a.tar"}
BODIES: dict[str, Any] = {
    "POST /v1/jobs": spec(),
    "PATCH /v1/jobs/{job_id}": {"name": "a", "labels": {"k": "v"}, "priority": 1},
    "POST /v1/jobs/{job_id}/clone": {"set": {"optimizer.lr": 1e-4, "stages.0.train.steps": 5}},
    "POST /v1/models/import": {"source": __file__, "name": "emoji", "alias": "a"},
    "PUT /v1/models/{name}/aliases/{alias}": {"version": 1},
    "PUT /v1/deployments/{name}": {"model": "emoji@1", "replicas": {"min": 1, "max": 2}},
    "POST /v1/deployments/{name}/zero-shot": {"image": "aGVsbG8=", "labels": ["a cat", "a dog"]},
    "POST /v1/deployments/{name}/embeddings": {"input": "a cat"},
    "POST /v1/deployments/{name}/search": {"index": "gallery", "text": "a cat"},
    "PUT /v1/indexes/{name}": {"model": "emoji@1", "source": {"shards": __file__, "metadata_keys": ["json"]}},
    "POST /v1/indexes/{name}/items": {"items": [{"id": "a", "text": "a cat"}]},
    "POST /v1/models/{name}/versions/{version}/exports": {"formats": ["onnx"]},
    "PUT /v1/datasets/{name}": {"source": {"shards": __file__, "where": {"short_side": {"min": 1}}}, "holdout": 0.1},
    "PUT /v1/datasets/{name}/aliases/{alias}": {"version": 1},
    "POST /v1/datasets/{name}/versions/{version}/reinforcements": {"teacher": {"model": "ViT-B-32", "pretrained": "openai"}},
    "POST /v1/evaluations": {"model": "emoji@1", "tasks": [TASK]},
    "POST /v1/searches": {
        "spec": spec(evaluation={"tasks": [TASK]}),
        "vary": {"optimizer.lr": [1e-4, 2e-4], "seed": {"min": 1, "max": 9, "integer": True}},
        "constraints": [{"bytes": {"max": 1e6}}],
    },
    "POST /v1/tokens": {"name": "ci", "scopes": ["read"], "expires_in_days": 3},
}


class TestHostileRequests:
    @on_both_databases
    async def test_hundreds_find_no_undeclared_response(self, start: Start) -> None:
        statuses = await attack(start, 500)

        assert len(always_refused(statuses)) < 0.2 * len(statuses)

    @pytest.mark.long
    @pytest.mark.timeout(1200)
    async def test_ten_thousand_find_none_either(self, start: Start) -> None:
        statuses = await attack(start, 10_000)

        assert always_refused(statuses) == []

    async def test_without_a_token_all_are_refused(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_server.api.rate_limits.REFUSALS_PER_MINUTE", 10**9)

        statuses = await attack(start, 100, secret=None)

        assert {label: set(seen) for label, seen in statuses.items() if label not in OPEN} == {
            label: {401} for label in statuses if label not in OPEN
        }


def always_refused(statuses: dict[str, collections.Counter[int]]) -> list[str]:
    """Return the operations that never succeeded, for which the responses prove little."""
    return [label for label, seen in statuses.items() if min(seen) >= 300]


async def attack(start: Start, requests: int, secret: str | None = "") -> dict[str, collections.Counter[int]]:
    """Send as many requests to each operation, and count the statuses of each. Raises what the checks find."""
    service, known = await furnished(start)
    service.app.state.services.stopping.set()  # long polls return at once
    if secret is not None:
        secret = await token(service, *Scope)
    every, loop = targets(service.app, known, BODIES), asyncio.get_running_loop()
    each = -(-requests // len(every))
    statuses = {}
    for target in every:
        statuses[target.label] = await asyncio.to_thread(_attack_one, service, target, secret, each, loop)
    assert sum(seen.total() for seen in statuses.values()) >= requests
    return statuses


def _attack_one(
    service: Service, target: Target, secret: str | None, requests: int, loop: asyncio.AbstractEventLoop
) -> collections.Counter[int]:
    statuses: collections.Counter[int] = collections.Counter()

    @settings(
        max_examples=requests, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def once(data: st.DataObject) -> None:
        case, request = target.draw(data)
        response = asyncio.run_coroutine_threadsafe(_send(service, request, secret), loop).result()
        statuses[response.status_code] += 1
        check_response(case, request, response)

    once()
    return statuses


async def _send(service: Service, request: httpx.Request, secret: str | None) -> httpx.Response:
    request.headers.pop("Authorization", None)
    if secret is not None:
        request.headers.update(bearer(secret))
    async with asyncio.timeout(SLOW_SECONDS):
        return await service.http.send(request)


async def furnished(start: Start) -> tuple[Service, dict[str, list[str]]]:
    """Return a service with tokens and one resource of each kind, and the path parameters that lead to them."""
    before = await start(ScriptedServe())
    worker = await before.running(name="emoji", labels={"k": "v"})
    worker.step(1, loss=1.5)
    worker.emit(log_line("hello"))
    worker.succeed()
    await before.tick()
    version = before.artifacts / "models" / "emoji" / "1"
    version.mkdir(parents=True)
    (version / "open_clip_model.safetensors").write_bytes(b"0123456789")
    diagram = before.artifacts / "jobs" / worker.job / "stages" / "1-half" / "layout.svg"
    diagram.parent.mkdir(parents=True)
    diagram.write_text("<svg/>")
    queued = await before.submit(name="later")
    cancelled = await before.submit(name="given-up")
    assert (await before.http.post(f"/v1/jobs/{cancelled['id']}/cancel")).is_success
    for path, body in (
        ("/v1/models/emoji/aliases/best", {"version": 1}),
        ("/v1/deployments/emoji", BODIES["PUT /v1/deployments/{name}"]),
        ("/v1/indexes/gallery", BODIES["PUT /v1/indexes/{name}"]),
    ):
        assert (await before.http.put(path, json=body)).is_success, path
    await before.reconcile("deployments", 2)
    await register(before)
    await before.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
    reinforcement = await reinforced(before)
    exports = BODIES["POST /v1/models/{name}/versions/{version}/exports"]
    assert (await before.http.post("/v1/models/emoji/versions/1/exports", json=exports)).is_success
    evaluation = (await before.http.post("/v1/evaluations", json=BODIES["POST /v1/evaluations"])).json()
    search = (await before.http.post("/v1/searches", json=BODIES["POST /v1/searches"])).json()
    await before.reconcile("searches")
    service = await start(before.ray, auth="tokens", requests_per_minute=10**9, max_body_bytes=200_000)
    reach(service, AnsweringServe())
    mine = await token(service, Scope.ADMIN)
    tokens = (await service.http.get("/v1/tokens", headers=bearer(mine))).json()["items"]
    return service, {
        "job_id": [worker.job, queued["id"], cancelled["id"]], "name": ["emoji", "gallery"], "version": ["1", "best", "latest"],
        "alias": ["best"], "index": ["1"], "path": ["open_clip_model.safetensors"], "token_id": [tokens[0]["id"]],
        "evaluation_id": [evaluation["id"]], "export": ["onnx"], "reinforcement": [reinforcement],
        "key": ["a/3"], "document": ["JobSpec"], "id": ["a/3"], "task": ["style"], "number": ["0"],
        "search_id": [search["id"]],
    }


class TestDocument:
    async def test_every_error_of_every_operation_is_a_problem(self, service: Service) -> None:
        document = (await service.http.get("/openapi.json")).json()

        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert len(operations) > 40
        for operation in operations:
            (kind, content), = operation["responses"]["default"]["content"].items()
            assert (kind, content["schema"]) == ("application/problem+json", {"$ref": "#/components/schemas/Problem"})
            assert "422" not in operation["responses"]

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"])
    async def test_other_methods_are_refused_with_a_problem(self, service: Service, method: str) -> None:
        for path in {path for _, path in every_request(service.app) if path.startswith("/v1")}:
            response = await service.http.request(method, path)
            assert response.status_code == 405, (method, path)
            assert response.headers["content-type"] == "application/problem+json"

    async def test_a_trailing_slash_is_neither_routed_nor_redirected(self, service: Service) -> None:
        response = await service.http.get("/v1/jobs/")

        assert (response.status_code, response.json()["code"]) == (404, "no_route")
        assert "location" not in response.headers


class TestRegressions:
    """One small request for each defect that the requests above have found."""

    @pytest.mark.parametrize("day", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "now"])
    async def test_a_page_token_of_a_day_that_does_not_exist_in_utc(self, service: Service, day: str) -> None:
        response = await service.http.get("/v1/jobs", params={"page_token": page_token(day, "job_x")})

        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/page_token")

    async def test_a_deeply_nested_page_token(self, service: Service) -> None:
        nested = page_token(*json.loads("[" * 900 + "]" * 900))

        assert (await service.http.get("/v1/jobs", params={"page_token": nested})).status_code == 422

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models/import", "/v1/jobs/job_x/clone"])
    @pytest.mark.parametrize("depth", [70, 900, 100_000])
    async def test_a_deeply_nested_body(self, service: Service, path: str, depth: int) -> None:
        body = b'{"set": {"a\\u0041": ' + b"[" * depth + b"]" * depth + b"}}"

        response = await service.http.post(path, content=body, headers={"content-type": "application/json"})

        assert response.status_code == 422

    async def test_a_deeply_nested_body_of_an_operation_without_one(self, service: Service) -> None:
        headers = {"content-type": "application/json", "Idempotency-Key": "k"}

        response = await service.http.post("/v1/jobs/job_x/cancel", content=b"[" * 100_000, headers=headers)

        assert response.status_code == 404

    async def test_the_limit_of_depth(self, service: Service) -> None:
        job = await service.submit()
        for levels, status in ((62, 404), (63, 422)):
            value = json.loads("[" * levels + "]" * levels)
            response = await service.http.post("/v1/jobs/job_x/clone", json={"set": {"a": value}})
            assert response.status_code == status, levels
        assert job["state"] == "queued"

    @pytest.mark.parametrize("body", [b"\x80", b'{"name":"\xff"}', b'{"name":' + b"9" * 5000 + b"}"])
    async def test_a_body_that_cannot_be_decoded(self, service: Service, body: bytes) -> None:
        response = await service.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})

        assert (response.status_code, response.json()["code"]) == (422, "malformed_json")

    @pytest.mark.parametrize("surrogate", [b"\\ud800", b"\xed\xa0\x80"], ids=["escaped", "as bytes"])
    async def test_an_unpaired_surrogate(self, service: Service, surrogate: bytes) -> None:
        body = json.dumps(spec(labels={"k": "HALF"})).encode().replace(b"HALF", surrogate)

        response = await service.http.post(
            "/v1/jobs", content=body, params={"validate_only": True}, headers={"content-type": "application/json"}
        )

        assert response.status_code == 422
        assert "surrogate" in response.json()["detail"]

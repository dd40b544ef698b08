"""The traffic of a deployment, from the metrics of its replicas."""

import asyncio
from typing import Any

import pytest
from tinyclip.schemas import Scope
from tinyclip_server.backends import node_metrics
from tinyclip_server.http.services import Services

from tests.server.deployments.demo import DEMO, MODEL, put
from tests.server.fakes import ScriptedServe
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start

TRAFFIC = f"{DEMO}/traffic"
OTHER_METRICS = 'ray_node_cpu{ip="a"} 5.0\nray_tinyclip_serve_requests_total{WorkerId="else",route="/zero-shot",status="200"} 9\n'


def node(id: str, ip: str, **changes: Any) -> dict[str, Any]:
    return {"raylet": {"nodeId": id, "nodeManagerAddress": ip, "metricsExportPort": 8080, "state": "ALIVE", **changes}}


def replica(id: str, node: str) -> dict[str, Any]:
    return {
        "replica_id": id, "state": "RUNNING", "worker_id": f"w-{id}", "node_id": node, "node_ip": f"ip-{node}",
        "start_time_s": 1_700_000_000,
    }  # fmt: skip


def metrics(worker: str, requests: int, model: str = "m@1") -> str:
    """Return what a node exposes for one replica: `requests` of 10 to 25 ms, one of them refused, and 100 probes."""
    labels = f'WorkerId="{worker}",deployment="demo"'
    bounds = {"0.01": 0, "0.025": requests, "+Inf": requests}
    seconds = [
        f'ray_tinyclip_serve_request_seconds_bucket{{{labels},route="/zero-shot",le="{le}"}} {count}'
        for le, count in bounds.items()
    ]
    return "\n".join([
        *seconds,
        f'ray_tinyclip_serve_request_seconds_sum{{{labels},route="/zero-shot"}} {0.0175 * requests}',
        f'ray_tinyclip_serve_request_seconds_count{{{labels},route="/zero-shot"}} {requests}',
        *[line.replace("request_seconds", "phase_seconds").replace('",le', '",phase="encode",le') for line in seconds],
        f'ray_tinyclip_serve_phase_seconds_count{{{labels},route="/zero-shot",phase="encode"}} {requests}',
        f'ray_tinyclip_serve_batch_items_bucket{{{labels},kind="images",le="1.0"}} {requests}',
        f'ray_tinyclip_serve_batch_items_count{{{labels},kind="images"}} {requests}',
        f'ray_tinyclip_serve_requests_total{{{labels},route="/zero-shot",status="200",model="{model}"}} {requests - 1}',
        f'ray_tinyclip_serve_requests_total{{{labels},route="/zero-shot",status="422",model="{model}"}} 1',
        f'ray_tinyclip_serve_requests_total{{{labels},route="/healthz",status="200",model="{model}"}} 100',
        f'ray_tinyclip_serve_cached_texts_total{{{labels},result="hit"}} 3',
        f'ray_tinyclip_serve_cached_texts_total{{{labels},result="miss"}} 1',
        f'ray_tinyclip_serve_waiting_items{{{labels},kind="images"}} 2',
        OTHER_METRICS,
    ])  # fmt: skip


@pytest.fixture
def ray() -> ScriptedServe:
    """A cluster with three nodes, two of which have a replica."""
    ray = ScriptedServe()
    ray.node_summary = {"summary": [node("n1", "10.0.0.1"), node("n2", "fd00::2"), node("n3", "10.0.0.3")]}
    ray.statuses["demo"] = {"deployments": {"Student": {"replicas": [replica("a", "n1"), replica("b", "n2")]}}}
    ray.exposed = {"10.0.0.1:8080": metrics("w-a", 8), "[fd00::2]:8080": metrics("w-b", 2, "m@2"), "10.0.0.3:8080": "x"}
    return ray


@pytest.fixture
async def service(start: Start, ray: ScriptedServe) -> Service:
    service = await start(ray)
    await service.register_model(MODEL)
    await put(service)
    await service.reconcile("deployments", 2)
    return service


async def test_it_sums_over_replicas(service: Service) -> None:
    traffic = await service.get(TRAFFIC)

    assert (traffic["queries"], traffic["latency"]["count"], traffic["latency"]["mean_ms"]) == (10, 10, 17.5)
    assert traffic["latency"]["p50_ms"] == 17.5
    assert traffic["models"] == [
        {"model": "m@1", "requests": 8, "share": 0.8}, {"model": "m@2", "requests": 2, "share": 0.2},
    ]  # fmt: skip
    assert {"route": "/zero-shot", "status": 422, "model": "m@2", "requests": 1} in traffic["counts"]
    assert {"route": "/healthz", "status": 200, "model": "m@1", "requests": 100} in traffic["counts"]
    [phase] = traffic["phases"]
    assert (phase["route"], phase["phase"], phase["p99_ms"]) == ("/zero-shot", "encode", pytest.approx(24.85))
    assert traffic["batches"] == [{"kind": "images", "batches": 10, "mean": 1.0, "buckets": [{"up_to": 1.0, "count": 10}]}]
    assert traffic["cached_texts"] == {"hits": 6, "misses": 2, "hit_rate": 0.75}
    assert (traffic["waiting"], traffic["unreachable"]) == ({"images": 4}, [])


async def test_each_replica(service: Service) -> None:
    first, second = (await service.get(TRAFFIC))["replicas"]

    assert first == {
        "id": "a", "state": "RUNNING", "node_id": "n1", "node_ip": "ip-n1", "started_at": "2023-11-14T22:13:20.000Z",
        "requests": 8, "mean_ms": 17.5, "waiting_items": 2,
    }  # fmt: skip
    assert (second["id"], second["requests"]) == ("b", 2)


async def test_a_node_that_does_not_answer(service: Service, ray: ScriptedServe) -> None:
    del ray.exposed["[fd00::2]:8080"]

    traffic = await service.get(TRAFFIC)

    assert (traffic["queries"], traffic["unreachable"]) == (8, ["[fd00::2]:8080"])
    assert [(one["id"], one["requests"]) for one in traffic["replicas"]] == [("a", 8), ("b", None)]


async def test_one_reading_for_all_callers(service: Service, ray: ScriptedServe, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await service.get(TRAFFIC)
    assert ray.scrapes == 2  # nodes without replicas are not read

    services: Services = service.app.state.services
    monkeypatch.setattr(services.node_metrics._snapshot, "_max_age_s", -1.0)
    await service.get(TRAFFIC)
    assert ray.scrapes == 4


async def test_a_node_that_hangs_takes_bounded_time(
    service: Service, ray: ScriptedServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = ray.node_metrics

    async def hang(address: str, prefix: bytes) -> str:
        if address == "10.0.0.1:8080":
            await asyncio.Event().wait()
        return await answer(address, prefix)

    monkeypatch.setattr(ray, "node_metrics", hang)
    monkeypatch.setattr(node_metrics, "SCRAPE_SECONDS", 0.05)

    traffic = await service.get(TRAFFIC)

    assert (traffic["queries"], traffic["unreachable"]) == (2, ["10.0.0.1:8080"])


async def test_without_any_replica(service: Service, ray: ScriptedServe) -> None:
    ray.statuses = {}

    traffic = await service.get(TRAFFIC)

    assert (traffic["queries"], traffic["latency"]["mean_ms"], traffic["replicas"]) == (0, None, [])


async def test_the_application_of_another_service_is_not_shown(service: Service, ray: ScriptedServe) -> None:
    config = ray.serve["applications"]["demo"]["deployed_app_config"]
    ray.statuses["demo"] |= {"deployed_app_config": {**config, "args": {**config["args"], "project": "theirs"}}}

    assert (await service.get(TRAFFIC))["replicas"] == []


async def test_without_ray(service: Service, ray: ScriptedServe) -> None:
    ray.unavailable = True

    response = await service.http.get(TRAFFIC)

    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "ray_unavailable", "2")


async def test_other_projects_have_no_access(start: Start, service: Service, ray: ScriptedServe) -> None:
    guarded = await start(ray, auth="tokens")
    theirs = bearer(await token(guarded, Scope.READ, project="other"))

    assert (await guarded.http.get(TRAFFIC, headers=theirs)).status_code == 404
    assert ray.scrapes == 0

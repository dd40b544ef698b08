"""`/v1/cluster`: nodes, and what of a project runs on them."""

import shlex
from typing import Any

import pytest
from tinyclip.schemas import Scope
from tinyclip_server.backends.ray_gateway import LiveJob, RayUnavailable
from tinyclip_server.cluster.nodes import nodes_of
from tinyclip_server.cluster.service import dashboard_url
from tinyclip_server.settings import Settings

from tests.server.deployments.demo import MODEL, put
from tests.server.fakes import ScriptedServe
from tests.server.guarded import bearer, token
from tests.server.service import Service, Start

GIB = 1 << 30
HEAD: dict[str, Any] = {
    "hostname": "one", "ip": "10.0.0.1", "cpu": 54.9, "mem": [16 * GIB, 4 * GIB, 75.0],
    "gpus": [{"name": "H100", "utilizationGpu": 30, "memoryUsed": 1024, "memoryTotal": 2048}],
    "raylet": {
        "nodeId": "head", "nodeManagerAddress": "10.0.0.1", "nodeManagerHostname": "one", "isHeadNode": True, "state": "ALIVE",
        "startTimeMs": "1700000000000", "resourcesTotal": {"CPU": 2.0, "GPU": 1.0, "memory": 1.0, "objectStoreMemory": 100.0},
        "objectStoreUsedMemory": 7, "labels": {"zone": "a"},
    },
}  # fmt: skip
LEFT: dict[str, Any] = {"raylet": {"nodeId": "gone", "state": "DEAD", "nodeManagerAddress": "10.0.0.2"}}
RESERVED = (
    "1.5/2.0 CPU (0.5 used of 1.0 reserved in placement groups)\n1.0/1.0 GPU\n0B/22.35GiB memory\n0.5/4.0 tinyclip_serving_cpu"
)
SUMMARY = {"summary": [LEFT, HEAD], "nodeLogicalResources": {"head": RESERVED}}


@pytest.fixture
def ray() -> ScriptedServe:
    ray = ScriptedServe()
    ray.node_summary = SUMMARY
    return ray


@pytest.fixture
async def service(start: Start, ray: ScriptedServe) -> Service:
    return await start(ray)


class TestNodes:
    async def test_resources_total_and_used(self, service: Service) -> None:
        cluster = await service.get("/v1/cluster")

        assert cluster["ray_version"] == "2.60.0"
        head, left = cluster["nodes"]
        assert (head["hostname"], head["ip"], head["is_head"], head["alive"]) == ("one", "10.0.0.1", True, True)
        assert (head["cpus"], head["gpus"]) == ({"total": 2.0, "used": 1.5}, {"total": 1.0, "used": 1.0})
        assert (head["memory"], head["cpu_percent"]) == ({"total": 16 * GIB, "used": 12 * GIB}, 54.9)
        assert head["object_store"] == {"total": 100.0, "used": 7.0}
        assert head["resources"] == {"tinyclip_serving_cpu": {"total": 4.0, "used": 0.5}}
        assert head["devices"] == [
            {"name": "H100", "utilization": 30.0, "memory": {"total": 2.0 * GIB, "used": 1.0 * GIB}},
        ]  # fmt: skip
        assert (head["joined_at"], head["labels"]) == ("2023-11-14T22:13:20.000Z", {"zone": "a"})
        assert (left["id"], left["alive"], left["cpus"]) == ("gone", False, {"total": 0.0, "used": None})

    def test_a_report_without_anything(self) -> None:
        assert nodes_of({}) == []
        assert nodes_of({"summary": [{}, {"raylet": {}}]}) == []


class TestWorkloads:
    async def test_a_training_job_and_its_workers(self, service: Service, ray: ScriptedServe) -> None:
        worker = await service.running(name="emoji")
        ray.actors = {"00000000": {"head", "second"}, "other": {"third"}}

        [found] = (await service.get("/v1/cluster"))["workloads"]

        assert (found["kind"], found["name"], found["id"], found["status"]) == ("job", "emoji", worker.job, "PENDING")
        assert found["submission_id"] == f"tc-{worker.job}-a1"
        assert (found["driver_node"], found["nodes"]) == ("head", ["head", "second"])

    async def test_an_ended_job_is_not_shown(self, service: Service, ray: ScriptedServe) -> None:
        await service.running(name="emoji")
        ray.jobs = {id: type(status).SUCCEEDED for id, status in ray.jobs.items()}

        cluster = await service.get("/v1/cluster")

        assert (cluster["workloads"], cluster["others"]) == ([], 0)

    async def test_other_kinds_of_jobs(self, service: Service) -> None:
        await service.register_model(MODEL)
        await service.call("POST", f"/v1/models/{MODEL}/versions/1/exports", {"formats": ["onnx"]}, status=202)
        await service.call(
            "PUT", "/v1/indexes/gallery", {"model": f"{MODEL}@1", "source": {"shards": __file__}}, status=202
        )
        await service.reconcile("exports")
        await service.reconcile("indexes")

        workloads = (await service.get("/v1/cluster"))["workloads"]

        assert {(one["kind"], one["name"]) for one in workloads} == {("export", f"{MODEL}@1 onnx"), ("index", "gallery")}

    async def test_replicas(self, service: Service, ray: ScriptedServe) -> None:
        await deployed(service, ray)

        [found] = (await service.get("/v1/cluster"))["workloads"]

        assert (found["kind"], found["name"], found["replica"], found["status"]) == ("replica", "demo", "r1", "RUNNING")
        assert (found["nodes"], found["started_at"]) == (["head"], "2023-11-14T22:13:20.000Z")

    async def test_others_are_counted_and_not_named(self, start: Start, service: Service, ray: ScriptedServe) -> None:
        await service.running(name="emoji")
        await deployed(service, ray)
        ray.running_elsewhere = [
            LiveJob("tc-index-theirs-b1", "python --artifacts /else --x", "RUNNING"), LiveJob("", "", "RUNNING"),
        ]  # fmt: skip
        guarded = await start(ray, auth="tokens")
        theirs = bearer(await token(guarded, Scope.READ, project="other"))

        mine = await service.get("/v1/cluster")
        seen = await guarded.http.get("/v1/cluster", headers=theirs)

        assert (len(mine["workloads"]), mine["others"]) == (2, 1)
        assert (seen.json()["workloads"], seen.json()["others"]) == ([], 3)
        assert "emoji" not in seen.text
        assert "demo" not in seen.text

    async def test_a_job_with_an_id_of_this_service_in_another_store(self, service: Service, ray: ScriptedServe) -> None:
        await service.running(name="emoji")
        ray.entrypoints = {id: f"python --artifacts {shlex.quote('/else')} --x" for id in ray.entrypoints}

        cluster = await service.get("/v1/cluster")

        assert (cluster["workloads"], cluster["others"]) == ([], 1)


class TestRay:
    async def test_without_it(self, service: Service, ray: ScriptedServe) -> None:
        ray.unavailable = True

        response = await service.http.get("/v1/cluster")

        assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "ray_unavailable", "2")

    async def test_without_a_list_of_actors(
        self, service: Service, ray: ScriptedServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse() -> dict[str, set[str]]:
            raise RayUnavailable("429 Max number of in-progress requests")

        monkeypatch.setattr(ray, "actor_nodes", refuse)
        await service.running(name="emoji")

        [found] = (await service.get("/v1/cluster"))["workloads"]

        assert found["nodes"] == ["head"]


def test_the_address_of_the_dashboard() -> None:
    embedded = Settings().model_copy(update={"ray_address": "http://127.0.0.1:8265"})

    assert dashboard_url(embedded) == "http://127.0.0.1:8265"
    assert dashboard_url(embedded.model_copy(update={"host": "0.0.0.0"})) is None
    assert dashboard_url(Settings(ray_address="http://ray-head:8265")) is None
    assert dashboard_url(Settings(ray_address="http://ray-head:8265", ray_dashboard_url="https://ray/")) == "https://ray"


async def deployed(service: Service, ray: ScriptedServe) -> None:
    """Deploy `demo`, with one replica."""
    await service.register_model(MODEL)
    await put(service)
    await service.reconcile("deployments", 2)
    one = {"replica_id": "r1", "state": "RUNNING", "worker_id": "w", "node_id": "head", "start_time_s": 1_700_000_000}
    ray.statuses["demo"] = {"deployments": {"Student": {"replicas": [one]}}}

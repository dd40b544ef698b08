"""Updates of deployments: rollback of a version that fails to start, canaries, and several models in one."""

from typing import Any

import pytest

from tests.server.deployments.demo import DEMO, MODEL, applications, get, put
from tests.server.fakes import ScriptedServe
from tests.server.service import Service, Start

OTHER = "emoji-tiny"
FAILED = {
    "status": "DEPLOY_FAILED",
    "deployments": {"Student": {"message": "Traceback (most recent call last):\n  File x\nGoldenMismatch: cosine 0.31\n"}},
}


@pytest.fixture
def ray() -> ScriptedServe:
    return ScriptedServe()


@pytest.fixture
async def service(start: Start, ray: ScriptedServe) -> Service:
    service = await start(ray)
    for _ in range(3):
        await service.register_model(MODEL)
    await service.register_model(OTHER)
    return service


async def refused(service: Service, **body: Any) -> dict[str, Any]:
    response = await service.http.put(DEMO, json={"model": f"{MODEL}@1", **body})
    assert response.status_code in (404, 422), response.text
    return response.json()


class TestRollback:
    @pytest.fixture
    async def failed(self, service: Service, ray: ScriptedServe) -> dict[str, Any]:
        """Return the deployment after an update from version 1 to version 2, which fails to start."""
        await put(service)
        await service.reconcile("deployments")
        await put(service, model=f"{MODEL}@2")
        ray.statuses["demo"] = FAILED
        await service.reconcile("deployments")
        return await get(service)

    async def test_the_last_known_good_version_is_deployed_again(
        self, service: Service, ray: ScriptedServe, failed: dict[str, Any]
    ) -> None:
        ray.statuses.clear()
        await service.reconcile("deployments")

        after = await get(service)
        assert applications(ray)["demo"]["args"]["model"] == f"{MODEL}@1"
        assert (failed["state"], failed["model"], failed["serving"]) == ("unhealthy", f"{MODEL}@2", f"{MODEL}@1")
        assert failed["message"] == f"{MODEL}@2 did not start: GoldenMismatch: cosine 0.31; {MODEL}@1 keeps answering"
        assert (after["state"], after["serving"], after["message"]) == ("unhealthy", f"{MODEL}@1", failed["message"])

    async def test_the_rollback_happens_once(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.statuses.clear()
        await service.reconcile("deployments", 4)

        assert len(ray.serve_bodies) == 3  # version 1, version 2, version 1 again

    async def test_a_repeated_request_tries_again(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.statuses.clear()
        await service.reconcile("deployments")

        repeated = await put(service, model=f"{MODEL}@2")
        await service.reconcile("deployments")

        after = await get(service)
        assert (repeated["state"], repeated["serving"]) == ("updating", f"{MODEL}@1")
        assert (after["state"], after["serving"], after["message"]) == ("ready", f"{MODEL}@2", "")

    async def test_a_third_version_replaces_it(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.statuses.clear()
        await service.reconcile("deployments")
        await put(service, model=f"{MODEL}@3")
        await service.reconcile("deployments")

        assert (await get(service))["serving"] == f"{MODEL}@3"

    async def test_a_rollback_that_fails_too_leaves_nothing_serving(self, service: Service, failed: dict[str, Any]) -> None:
        await service.reconcile("deployments", 2)

        after = await get(service)
        assert (after["state"], after["serving"]) == ("unhealthy", None)

    async def test_a_first_version_has_no_rollback(self, service: Service, ray: ScriptedServe) -> None:
        ray.statuses["demo"] = FAILED
        await put(service)
        await service.reconcile("deployments", 2)

        after = await get(service)
        assert (after["state"], after["serving"], after["message"]) == ("unhealthy", None, "GoldenMismatch: cosine 0.31")
        assert len(ray.serve_bodies) == 1


class TestCanary:
    async def test_running_replicas_are_reconfigured(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments")
        before = applications(ray)["demo"]

        deployment = await put(service, canary={"model": f"{MODEL}@latest", "weight": 0.1})
        await service.reconcile("deployments")

        now = applications(ray)["demo"]
        assert deployment["canary"] == {"model": f"{MODEL}@3", "weight": 0.1}
        assert now["args"] == before["args"]
        assert now["deployments"][0]["user_config"]["canary"] == {
            "model": f"{MODEL}@3", "model_uri": f"{service.artifacts}/models/{MODEL}/3", "weight": 0.1,
        }  # fmt: skip
        assert before["deployments"][0]["user_config"]["canary"] is None

    async def test_a_failure_to_load_it_is_shown(self, service: Service, ray: ScriptedServe) -> None:
        ray.health = {"status": "ok", "canary": {"model": f"{MODEL}@2", "error": "it has no weights"}}
        await put(service, canary={"model": f"{MODEL}@2", "weight": 0.1})

        await service.reconcile("deployments")

        deployment = await get(service)
        assert (deployment["state"], deployment["message"]) == ("ready", f"canary {MODEL}@2 gets no queries: it has no weights")

    @pytest.mark.parametrize("model", [f"{MODEL}@1", f"{OTHER}@1"])
    async def test_it_must_be_another_version_of_the_same_model(self, service: Service, model: str) -> None:
        problem = await refused(service, canary={"model": model, "weight": 0.1})

        [error] = problem["errors"]
        assert (error["pointer"], error["value"]) == ("/canary/model", model)
        assert f"a version of {MODEL}" in error["message"]

    @pytest.mark.parametrize("weight", [0, 1, -0.1, 7])
    async def test_an_invalid_weight_is_refused(self, service: Service, weight: float) -> None:
        problem = await refused(service, canary={"model": f"{MODEL}@2", "weight": weight})

        assert problem["errors"][0]["pointer"] == "/canary/weight"

    async def test_repeated_it_is_a_no_op(self, service: Service, ray: ScriptedServe) -> None:
        canary = {"model": f"{MODEL}@2", "weight": 0.1}
        await put(service, canary=canary)
        await service.reconcile("deployments")
        before = await get(service)

        await put(service, canary=canary)
        await service.reconcile("deployments")

        assert await get(service) == before
        assert len(ray.serve_bodies) == 1


class TestManyModels:
    async def test_replicas_get_the_address_of_each(self, service: Service, ray: ScriptedServe) -> None:
        deployment = await put(service, models=[f"{OTHER}@latest", f"{MODEL}@2"], resident=1)
        await service.reconcile("deployments")

        assert deployment["models"] == [f"{OTHER}@1", f"{MODEL}@2"]
        root = f"{service.artifacts}/models"
        user_config = applications(ray)["demo"]["deployments"][0]["user_config"]
        assert {name: user_config[name] for name in user_config.keys() - {"owner", "revision"}} == {
            "canary": None, "resident": 1, "models": {f"{OTHER}@1": f"{root}/{OTHER}/1", f"{MODEL}@2": f"{root}/{MODEL}/2"},
        }  # fmt: skip

    async def test_a_missing_model_is_refused(self, service: Service) -> None:
        problem = await refused(service, models=[f"{OTHER}@1", "nothing@1"])

        assert "nothing" in problem["detail"]
        assert await service.items("/v1/deployments") == []

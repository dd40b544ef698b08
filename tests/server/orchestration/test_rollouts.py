"""Deployments that change: the way back from a version that does not start, canaries, and many models in one."""

from typing import Any

import pytest

from tests.server.deployments.test_deployments import MODEL, get, put, round_, told
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
        await service.made(MODEL)
    await service.made(OTHER)
    return service


async def refused(service: Service, **body: Any) -> dict[str, Any]:
    answer = await service.http.put("/v1/deployments/demo", json={"model": f"{MODEL}@1", **body})
    assert answer.status_code in (404, 422), answer.text
    return answer.json()


class TestAVersionThatDoesNotStart:
    @pytest.fixture
    async def failed(self, service: Service, ray: ScriptedServe) -> dict[str, Any]:
        """Version 1 answers, version 2 was asked for and does not start."""
        await put(service)
        await round_(service)
        await put(service, model=f"{MODEL}@2")
        ray.says["demo"] = FAILED
        await round_(service)
        return await get(service)

    async def test_the_one_before_is_given_to_serve_again(
        self, service: Service, ray: ScriptedServe, failed: dict[str, Any]
    ) -> None:
        ray.says.clear()
        await round_(service)

        after = await get(service)
        assert told(ray)["demo"]["args"]["model"] == f"{MODEL}@1"
        assert (failed["state"], failed["model"], failed["serving"]) == ("unhealthy", f"{MODEL}@2", f"{MODEL}@1")
        assert failed["message"] == f"{MODEL}@2 did not start: GoldenMismatch: cosine 0.31; {MODEL}@1 goes on answering"
        assert (after["state"], after["serving"], after["message"]) == ("unhealthy", f"{MODEL}@1", failed["message"])

    async def test_nothing_more_happens_by_itself(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.says.clear()
        for _ in range(4):
            await round_(service)

        assert len(ray.serve_bodies) == 3  # version 1, version 2, version 1 again

    async def test_asked_for_again_it_is_tried_again(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.says.clear()
        await round_(service)

        again = await put(service, model=f"{MODEL}@2")
        await round_(service)

        after = await get(service)
        assert (again["state"], again["serving"]) == ("updating", f"{MODEL}@1")
        assert (after["state"], after["serving"], after["message"]) == ("ready", f"{MODEL}@2", "")

    async def test_a_third_version_takes_over(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        ray.says.clear()
        await round_(service)
        await put(service, model=f"{MODEL}@3")
        await round_(service)

        assert (await get(service))["serving"] == f"{MODEL}@3"

    async def test_a_way_back_that_is_closed_too(self, service: Service, ray: ScriptedServe, failed: dict[str, Any]) -> None:
        await round_(service)
        await round_(service)

        after = await get(service)
        assert (after["state"], after["serving"]) == ("unhealthy", None)

    async def test_a_first_version_has_no_way_back(self, service: Service, ray: ScriptedServe) -> None:
        ray.says["demo"] = FAILED
        await put(service)
        await round_(service)
        await round_(service)

        after = await get(service)
        assert (after["state"], after["serving"], after["message"]) == ("unhealthy", None, "GoldenMismatch: cosine 0.31")
        assert len(ray.serve_bodies) == 1


class TestCanary:
    async def test_replicas_take_it_over_as_they_go_on(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await round_(service)
        before = told(ray)["demo"]

        made = await put(service, canary={"model": f"{MODEL}@latest", "weight": 0.1})
        await round_(service)

        now = told(ray)["demo"]
        assert made["canary"] == {"model": f"{MODEL}@3", "weight": 0.1}
        assert now["args"] == before["args"]
        assert now["deployments"][0]["user_config"]["canary"] == {
            "model": f"{MODEL}@3", "model_uri": f"{service.artifacts}/models/{MODEL}/3", "weight": 0.1,
        }  # fmt: skip
        assert before["deployments"][0]["user_config"]["canary"] is None

    async def test_one_that_cannot_be_loaded_is_told_of(self, service: Service, ray: ScriptedServe) -> None:
        ray.health = {"status": "ok", "canary": {"model": f"{MODEL}@2", "error": "it has no weights"}}
        await put(service, canary={"model": f"{MODEL}@2", "weight": 0.1})

        await round_(service)

        made = await get(service)
        assert (made["state"], made["message"]) == ("ready", f"canary {MODEL}@2 gets no queries: it has no weights")

    @pytest.mark.parametrize("model", [f"{MODEL}@1", f"{OTHER}@1"])
    async def test_is_another_version_of_the_same_model(self, service: Service, model: str) -> None:
        problem = await refused(service, canary={"model": model, "weight": 0.1})

        [error] = problem["errors"]
        assert (error["pointer"], error["value"]) == ("/canary/model", model)
        assert f"a version of {MODEL}" in error["message"]

    @pytest.mark.parametrize("weight", [0, 1, -0.1, 7])
    async def test_has_a_share(self, service: Service, weight: float) -> None:
        problem = await refused(service, canary={"model": f"{MODEL}@2", "weight": weight})

        assert problem["errors"][0]["pointer"] == "/canary/weight"

    async def test_the_same_again_changes_nothing(self, service: Service, ray: ScriptedServe) -> None:
        canary = {"model": f"{MODEL}@2", "weight": 0.1}
        await put(service, canary=canary)
        await round_(service)
        before = await get(service)

        await put(service, canary=canary)
        await round_(service)

        assert await get(service) == before
        assert len(ray.serve_bodies) == 1


class TestManyModels:
    async def test_replicas_know_where_each_is(self, service: Service, ray: ScriptedServe) -> None:
        made = await put(service, models=[f"{OTHER}@latest", f"{MODEL}@2"], resident=1)
        await round_(service)

        assert made["models"] == [f"{OTHER}@1", f"{MODEL}@2"]
        root = f"{service.artifacts}/models"
        assert told(ray)["demo"]["deployments"][0]["user_config"] == {
            "canary": None, "resident": 1, "models": {f"{OTHER}@1": f"{root}/{OTHER}/1", f"{MODEL}@2": f"{root}/{MODEL}/2"},
        }  # fmt: skip

    async def test_one_that_is_not_there(self, service: Service) -> None:
        problem = await refused(service, models=[f"{OTHER}@1", "nothing@1"])

        assert "nothing" in problem["detail"]
        assert (await service.http.get("/v1/deployments")).json()["items"] == []

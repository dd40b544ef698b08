"""Deployments: what is asked, what Serve is told, and what is said of it."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayRefused
from tinyclip_server.orchestration.deployments import reconcile

from tests.server.fakes import ScriptedRay, ScriptedServe
from tests.server.service import Service, Start

MODEL = "emoji-half"


@pytest.fixture
def ray() -> ScriptedServe:
    return ScriptedServe()


@pytest.fixture
async def service(start: Start, ray: ScriptedServe) -> Service:
    """With two versions of a model."""
    service = await start(ray)
    for _ in range(2):
        await service.made(MODEL)
    return service


async def put(service: Service, name: str = "demo", **changes: Any) -> dict[str, Any]:
    answer = await service.http.put(f"/v1/deployments/{name}", json={"model": f"{MODEL}@1", **changes})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def get(service: Service, name: str = "demo") -> dict[str, Any]:
    answer = await service.http.get(f"/v1/deployments/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def round_(service: Service) -> None:
    await reconcile(service.app.state.services)


def told(ray: ScriptedRay) -> dict[str, Any]:
    """The applications that Serve was last told, by name."""
    return {app["name"]: app for app in ray.serve_bodies[-1]["applications"]}


class TestPut:
    async def test_says_where_it_will_answer(self, service: Service) -> None:
        made = await put(service)

        assert made["state"] == "deploying"
        assert made["endpoint"] == f"{service.settings.serve_base_url}/demo"
        assert (made["model"], made["replicas"], made["engine"]) == (
            f"{MODEL}@1", {"min": 1, "max": 1, "target_requests": 16}, "auto",
        )  # fmt: skip

    async def test_resolves_the_version(self, service: Service) -> None:
        await service.http.put(f"/v1/models/{MODEL}/aliases/best", json={"version": 1})

        assert (await put(service, model=f"{MODEL}@latest"))["model"] == f"{MODEL}@2"
        assert (await put(service, model=f"{MODEL}@best"))["model"] == f"{MODEL}@1"

    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            ({}, 422, "/model"),
            ({"model": "nothing@1"}, 404, "there is no model nothing"),
            ({"model": f"{MODEL}@9"}, 404, "no version or alias 9"),
            ({"model": f"{MODEL}@1", "replica": {}}, 422, "did you mean replicas?"),
            ({"model": f"{MODEL}@1", "replicas": {"min": 2, "max": 1}}, 422, "max must be at least min"),
            ({"model": f"{MODEL}@1", "engine": "steam"}, 422, "/engine"),
        ],
    )
    async def test_bad_bodies(self, service: Service, body: dict[str, Any], status: int, says: str) -> None:
        answer = await service.http.put("/v1/deployments/demo", json=body)

        assert answer.status_code == status
        assert says in answer.text
        assert (await service.http.get("/v1/deployments")).json()["items"] == []

    async def test_bad_names(self, service: Service) -> None:
        answer = await service.http.put("/v1/deployments/Not%20A%20Name", json={"model": f"{MODEL}@1"})

        assert answer.status_code == 422

    async def test_the_same_again_changes_nothing(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await round_(service)
        before = await get(service)

        await put(service)
        await round_(service)

        assert await get(service) == before
        assert len(ray.serve_bodies) == 1


class TestReconcile:
    async def test_serve_is_told_everything_and_says_ready(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await put(service, "other", replicas={"min": 1, "max": 3})

        await round_(service)

        assert set(told(ray)) == {"demo", "other"}
        app = told(ray)["demo"]
        assert (app["import_path"], app["route_prefix"]) == ("tinyclip_workers.serving:build", "/demo")
        assert app["args"] == {
            "name": "demo", "model": f"{MODEL}@1", "model_uri": f"{service.artifacts}/models/{MODEL}/1",
            "artifacts": str(service.artifacts), "engine": "auto", "project": "default", "auth": "none",
            "image_urls": False, "image_url_hosts": [],
        }
        assert app["deployments"][0]["num_replicas"] == 1
        assert app["deployments"][0]["max_surge_percent"] == 100
        assert told(ray)["other"]["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
        assert (await get(service))["state"] == "ready"

    async def test_replicas_are_told_whether_they_may_fetch_images(self, start: Start, ray: ScriptedServe) -> None:
        service = await start(ray, serve_image_urls=True, serve_image_url_hosts=["images.example"])
        await service.made(MODEL)
        await put(service)

        await round_(service)

        args = told(ray)["demo"]["args"]
        assert (args["image_urls"], args["image_url_hosts"]) == (True, ["images.example"])

    async def test_without_deployments_serve_is_left_alone(self, service: Service, ray: ScriptedServe) -> None:
        await round_(service)

        assert ray.serve_bodies == []

    async def test_what_serve_says_is_shown(self, service: Service, ray: ScriptedServe) -> None:
        ray.says["demo"] = {"status": "DEPLOYING", "message": "starting", "deployments": {"Student": {"message": "no CPUs"}}}
        await put(service)
        await round_(service)
        waiting = await get(service)
        traceback = "failed 3 times. Error:\nTraceback (most recent call last):\n  File x\nFileNotFoundError: no weights\n"
        ray.says["demo"] = {"status": "DEPLOY_FAILED", "message": "failed", "deployments": {"Student": {"message": traceback}}}
        await round_(service)
        failed = await get(service)

        assert (waiting["state"], waiting["message"]) == ("deploying", "no CPUs")
        assert (failed["state"], failed["message"]) == ("unhealthy", "FileNotFoundError: no weights")

    async def test_is_ready_only_when_the_proxy_knows_the_way(self, service: Service, ray: ScriptedServe) -> None:
        ray.proxy_knows = False
        await put(service)

        await round_(service)
        before = await get(service)
        ray.proxy_knows = True
        await round_(service)

        assert (before["state"], "proxy" in before["message"]) == ("deploying", True)
        assert (await get(service))["state"] == "ready"

    async def test_an_update_keeps_answering(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await round_(service)

        updated = await put(service, model=f"{MODEL}@2")
        ray.says["demo"] = {"status": "DEPLOYING"}
        await round_(service)
        on_the_way = await get(service)
        ray.says.clear()
        await round_(service)

        assert (updated["state"], on_the_way["state"]) == ("updating", "updating")
        assert told(ray)["demo"]["args"]["model"] == f"{MODEL}@2"
        assert (await get(service))["state"] == "ready"

    async def test_a_serve_that_was_started_anew_is_told_again(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await round_(service)
        ray.serve = {"applications": {}}
        ray.says["demo"] = {"status": "DEPLOYING"}

        await round_(service)
        on_the_way = await get(service)
        ray.says.clear()
        await round_(service)

        assert len(ray.serve_bodies) == 2
        assert on_the_way["state"] == "deploying"
        assert (await get(service))["state"] == "ready"

    async def test_nothing_new_is_not_told_again(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        for _ in range(3):
            await round_(service)

        assert len(ray.serve_bodies) == 1

    async def test_a_cluster_that_is_away_changes_nothing(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        ray.away = True
        await round_(service)
        before = await get(service)
        ray.away = False
        await round_(service)

        assert before["state"] == "deploying"
        assert (await get(service))["state"] == "ready"

    async def test_a_refused_configuration_says_why(self, service: Service, ray: ScriptedServe) -> None:
        ray.refusal = RayRefused("no such field")
        await put(service)

        await round_(service)

        refused = await get(service)
        assert (refused["state"], refused["message"]) == ("unhealthy", "Ray Serve refused the configuration: no such field")

    async def test_applications_of_others_stay(self, service: Service, ray: ScriptedServe) -> None:
        theirs = {"name": "theirs", "import_path": "their.code:app", "route_prefix": "/theirs"}
        ray.serve = {"applications": {"theirs": {"status": "RUNNING", "deployed_app_config": theirs}}}
        await put(service)

        await round_(service)

        assert told(ray)["theirs"] == theirs


class TestDelete:
    async def test_goes_when_serve_has_let_go(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await put(service, "other")
        await round_(service)

        answer = await service.http.delete("/v1/deployments/demo")
        await round_(service)

        assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
        assert set(told(ray)) == {"other"}
        assert (await service.http.get("/v1/deployments/demo")).status_code == 404
        assert (await get(service, "other"))["state"] == "ready"

    async def test_what_its_replicas_kept_goes_with_it(self, service: Service, ray: ScriptedServe) -> None:
        for name in ("demo", "other"):
            await put(service, name)
            kept = service.artifacts / "deployments" / name / "label-sets" / "pets.json"
            kept.parent.mkdir(parents=True)
            kept.write_text("{}")
        await round_(service)

        await service.http.delete("/v1/deployments/demo")
        await round_(service)

        assert [folder.name for folder in (service.artifacts / "deployments").iterdir()] == ["other"]

    async def test_the_last_one_leaves_an_empty_list(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await round_(service)

        await service.http.delete("/v1/deployments/demo")
        await round_(service)
        await round_(service)

        assert told(ray) == {}
        assert len(ray.serve_bodies) == 2

    async def test_a_name_that_is_going_cannot_be_put(self, service: Service) -> None:
        await put(service)
        await service.http.delete("/v1/deployments/demo")

        answer = await service.http.put("/v1/deployments/demo", json={"model": f"{MODEL}@1"})

        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_deleting")

    async def test_with_a_stale_etag(self, service: Service) -> None:
        await put(service)
        etag = (await service.http.get("/v1/deployments/demo")).headers["etag"]
        await put(service, model=f"{MODEL}@2")

        answer = await service.http.delete("/v1/deployments/demo", headers={"If-Match": etag})

        assert answer.status_code == 412

    async def test_one_that_is_not_there(self, service: Service) -> None:
        assert (await service.http.delete("/v1/deployments/demo")).status_code == 404


async def test_lists_by_name_in_pages(service: Service) -> None:
    for name in ("c", "a", "b"):
        await put(service, name)

    first = (await service.http.get("/v1/deployments", params={"page_size": 2})).json()
    second = (await service.http.get("/v1/deployments", params={"page_token": first["next_page_token"]})).json()

    assert [item["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next_page_token"] is None

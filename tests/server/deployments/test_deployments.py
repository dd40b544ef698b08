"""Deployments: requests, the configuration of Ray Serve, and the states that follow from its status."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayRefused

from tests.server.deployments.demo import DEMO, MODEL, applications, get, put
from tests.server.fakes import ScriptedServe
from tests.server.service import Service, Start

OTHER = "/v1/deployments/other"


@pytest.fixture
def ray() -> ScriptedServe:
    return ScriptedServe()


@pytest.fixture
async def service(start: Start, ray: ScriptedServe) -> Service:
    """A service with two versions of a model."""
    service = await start(ray)
    for _ in range(2):
        await service.register_model(MODEL)
    return service


class TestPut:
    async def test_it_returns_the_endpoint(self, service: Service) -> None:
        created = await put(service)

        assert created["state"] == "deploying"
        assert created["endpoint"] == f"{service.settings.serve_base_url}/demo"
        assert (created["model"], created["replicas"], created["engine"]) == (
            f"{MODEL}@1", {"min": 1, "max": 1, "target_requests": 16}, "auto",
        )  # fmt: skip

    async def test_it_returns_what_an_update_has_to_send_again(self, service: Service) -> None:
        replicas = {"min": 1, "max": 3, "target_requests": 8}
        await put(service, models=[f"{MODEL}@2"], resident=2, replicas=replicas)

        found = await get(service)

        assert (found["models"], found["resident"], found["replicas"]) == ([f"{MODEL}@2"], 2, replicas)
        assert (await put(service, OTHER))["resident"] == 4

    async def test_it_resolves_the_version(self, service: Service) -> None:
        await service.http.put(f"/v1/models/{MODEL}/aliases/best", json={"version": 1})

        assert (await put(service, model=f"{MODEL}@latest"))["model"] == f"{MODEL}@2"
        assert (await put(service, model=f"{MODEL}@best"))["model"] == f"{MODEL}@1"

    @pytest.mark.parametrize(
        ("body", "status", "text"),
        [
            ({}, 422, "/model"),
            ({"model": "nothing@1"}, 404, "there is no model nothing"),
            ({"model": f"{MODEL}@9"}, 404, "no version or alias 9"),
            ({"model": f"{MODEL}@1", "replica": {}}, 422, "did you mean replicas?"),
            ({"model": f"{MODEL}@1", "replicas": {"min": 2, "max": 1}}, 422, "max must be at least min"),
            ({"model": f"{MODEL}@1", "engine": "steam"}, 422, "/engine"),
        ],
    )
    async def test_invalid_bodies_are_refused_without_an_effect(
        self, service: Service, body: dict[str, Any], status: int, text: str
    ) -> None:
        response = await service.http.put(DEMO, json=body)

        assert response.status_code == status
        assert text in response.text
        assert await service.items("/v1/deployments") == []

    async def test_invalid_names_are_refused(self, service: Service) -> None:
        response = await service.http.put("/v1/deployments/Not%20A%20Name", json={"model": f"{MODEL}@1"})

        assert response.status_code == 422

    async def test_repeated_it_is_a_no_op(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments")
        before = await get(service)

        await put(service)
        await service.reconcile("deployments")

        assert await get(service) == before
        assert len(ray.serve_bodies) == 1


class TestReconcile:
    async def test_serve_gets_all_deployments_which_become_ready(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await put(service, OTHER, replicas={"min": 1, "max": 3})

        await service.reconcile("deployments")

        assert set(applications(ray)) == {"demo", "other"}
        app = applications(ray)["demo"]
        assert (app["import_path"], app["route_prefix"]) == ("tinyclip_workers.serving:build", "/demo")
        assert app["args"] == {
            "name": "demo", "model": f"{MODEL}@1", "model_uri": f"{service.artifacts}/models/{MODEL}/1",
            "artifacts": str(service.artifacts), "engine": "auto", "project": "default", "auth": "none", "hosts": ["127.0.0.1"],
            "image_urls": False, "image_url_hosts": [],
        }
        assert app["deployments"][0]["num_replicas"] == 1
        assert app["deployments"][0]["max_surge_percent"] == 100
        assert applications(ray)["other"]["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
        assert (await get(service))["state"] == "ready"

    async def test_replicas_get_the_settings_of_image_urls(self, start: Start, ray: ScriptedServe) -> None:
        service = await start(ray, serve_image_urls=True, serve_image_url_hosts=["images.example"])
        await service.register_model(MODEL)
        await put(service)

        await service.reconcile("deployments")

        args = applications(ray)["demo"]["args"]
        assert (args["image_urls"], args["image_url_hosts"]) == (True, ["images.example"])

    async def test_without_deployments_serve_is_not_configured(self, service: Service, ray: ScriptedServe) -> None:
        await service.reconcile("deployments")

        assert ray.serve_bodies == []

    async def test_messages_of_serve_are_shown(self, service: Service, ray: ScriptedServe) -> None:
        ray.statuses["demo"] = {"status": "DEPLOYING", "message": "starting", "deployments": {"Student": {"message": "no CPUs"}}}
        await put(service)
        await service.reconcile("deployments")
        waiting = await get(service)
        traceback = "failed 3 times. Error:\nTraceback (most recent call last):\n  File x\nFileNotFoundError: no weights\n"
        failure = {"message": "failed", "deployments": {"Student": {"message": traceback}}}
        ray.statuses["demo"] = {"status": "DEPLOY_FAILED", **failure}
        await service.reconcile("deployments")
        failed = await get(service)

        assert (waiting["state"], waiting["message"]) == ("deploying", "no CPUs")
        assert (failed["state"], failed["message"]) == ("unhealthy", "FileNotFoundError: no weights")

    async def test_a_proxy_that_does_not_start_is_reported_with_its_port(self, service: Service, ray: ScriptedServe) -> None:
        ray.proxy_routes = False
        await put(service)
        await service.reconcile("deployments")
        messages = []
        for status in ("STARTING", "UNHEALTHY", "HEALTHY"):
            ray.serve |= {"http_options": {"port": 9000}, "proxies": {"node": {"status": status}}}
            await service.reconcile("deployments")
            messages.append((await get(service))["message"])

        assert "does not pass requests to it yet" in messages[2]
        assert messages[0] == messages[1] != messages[2]
        assert all(part in messages[0] for part in ("proxy", "port 9000", "TINYCLIP_SERVE_PORT"))

    async def test_it_is_ready_only_once_the_proxy_routes_requests(self, service: Service, ray: ScriptedServe) -> None:
        ray.proxy_routes = False
        await put(service)

        await service.reconcile("deployments")
        before = await get(service)
        ray.proxy_routes = True
        await service.reconcile("deployments")

        assert (before["state"], "proxy" in before["message"]) == ("deploying", True)
        assert (await get(service))["state"] == "ready"

    async def test_an_update_stays_available(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments")

        updated = await put(service, model=f"{MODEL}@2")
        ray.statuses["demo"] = {"status": "DEPLOYING"}
        await service.reconcile("deployments")
        meanwhile = await get(service)
        ray.statuses.clear()
        await service.reconcile("deployments")

        assert (updated["state"], meanwhile["state"]) == ("updating", "updating")
        assert applications(ray)["demo"]["args"]["model"] == f"{MODEL}@2"
        assert (await get(service))["state"] == "ready"

    async def test_a_restarted_serve_is_configured_again(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments")
        ray.serve = {"applications": {}}
        ray.statuses["demo"] = {"status": "DEPLOYING"}

        await service.reconcile("deployments")
        meanwhile = await get(service)
        ray.statuses.clear()
        await service.reconcile("deployments")

        assert len(ray.serve_bodies) == 2
        assert meanwhile["state"] == "deploying"
        assert (await get(service))["state"] == "ready"

    async def test_an_unchanged_configuration_is_sent_once(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments", 3)

        assert len(ray.serve_bodies) == 1

    async def test_an_unavailable_cluster_is_configured_later(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        ray.unavailable = True
        await service.reconcile("deployments")
        before = await get(service)
        ray.unavailable = False
        await service.reconcile("deployments")

        assert before["state"] == "deploying"
        assert (await get(service))["state"] == "ready"

    async def test_a_refused_configuration_has_the_reason(self, service: Service, ray: ScriptedServe) -> None:
        ray.refusal = RayRefused("no such field")
        await put(service)

        await service.reconcile("deployments")

        refused = await get(service)
        assert (refused["state"], refused["message"]) == ("unhealthy", "Ray Serve refused the configuration: no such field")

    async def test_other_applications_are_kept(self, service: Service, ray: ScriptedServe) -> None:
        theirs = {"name": "theirs", "import_path": "their.code:app", "route_prefix": "/theirs"}
        ray.serve = {"applications": {"theirs": {"status": "RUNNING", "deployed_app_config": theirs}}}
        await put(service)

        await service.reconcile("deployments")

        assert applications(ray)["theirs"] == theirs


class TestHosts:
    @pytest.mark.parametrize(
        ("settings", "hosts"),
        [
            ({}, ["127.0.0.1"]),
            ({"serve_url": "https://clip.example:8443/x"}, ["clip.example"]),
            ({"allow_public": True}, None),
        ],
        ids=["default", "its-own-url", "behind-a-proxy"],
    )
    async def test_replicas_get_the_names_by_which_they_are_reached(
        self, start: Start, ray: ScriptedServe, settings: dict[str, Any], hosts: list[str] | None
    ) -> None:
        service = await start(ray, **settings)
        await service.register_model(MODEL)
        await put(service)

        await service.reconcile("deployments")

        assert applications(ray)["demo"]["args"]["hosts"] == hosts


class TestResources:
    @pytest.mark.parametrize(
        ("ray_address", "reserved"),
        [
            ("", {"num_cpus": 0, "resources": {"tinyclip_serving_cpu": 0.5}}),
            ("http://ray:8265", {"num_cpus": 0.5}),
        ],
        ids=["embedded", "production"],
    )
    async def test_a_replica_of_an_embedded_cluster_leaves_all_cpus_to_trainings(
        self, start: Start, ray: ScriptedServe, ray_address: str, reserved: dict[str, Any]
    ) -> None:
        service = await start(ray, ray_address=ray_address)
        await service.register_model(MODEL)
        await put(service)

        await service.reconcile("deployments")

        assert applications(ray)["demo"]["deployments"][0]["ray_actor_options"] == reserved


class TestDelete:
    async def test_it_is_deleted_once_serve_has_removed_it(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await put(service, OTHER)
        await service.reconcile("deployments")

        response = await service.http.delete(DEMO)
        await service.reconcile("deployments")

        assert (response.status_code, response.json()["state"]) == (202, "deleting")
        assert set(applications(ray)) == {"other"}
        assert (await service.http.get(DEMO)).status_code == 404
        assert (await service.get(OTHER))["state"] == "ready"

    async def test_files_of_its_replicas_are_removed(self, service: Service, ray: ScriptedServe) -> None:
        for name in ("demo", "other"):
            await put(service, f"/v1/deployments/{name}")
            file = service.artifacts / "deployments" / name / "label-sets" / "pets.json"
            file.parent.mkdir(parents=True)
            file.write_text("{}")
        await service.reconcile("deployments")

        await service.http.delete(DEMO)
        await service.reconcile("deployments")

        assert [folder.name for folder in (service.artifacts / "deployments").iterdir()] == ["other"]

    async def test_after_the_last_one_serve_has_no_applications(self, service: Service, ray: ScriptedServe) -> None:
        await put(service)
        await service.reconcile("deployments")

        await service.http.delete(DEMO)
        await service.reconcile("deployments", 2)

        assert applications(ray) == {}
        assert len(ray.serve_bodies) == 2

    async def test_a_deployment_that_is_being_deleted_cannot_be_put(self, service: Service) -> None:
        await put(service)
        await service.http.delete(DEMO)

        response = await service.http.put(DEMO, json={"model": f"{MODEL}@1"})

        assert (response.status_code, response.json()["code"]) == (409, "deployment_deleting")

    async def test_a_stale_etag_is_refused(self, service: Service) -> None:
        await put(service)
        etag = (await service.http.get(DEMO)).headers["etag"]
        await put(service, model=f"{MODEL}@2")

        response = await service.http.delete(DEMO, headers={"If-Match": etag})

        assert response.status_code == 412

    async def test_a_missing_deployment_is_not_found(self, service: Service) -> None:
        assert (await service.http.delete(DEMO)).status_code == 404


async def test_the_list_is_by_name_in_pages(service: Service) -> None:
    for name in ("c", "a", "b"):
        await put(service, f"/v1/deployments/{name}")

    first = (await service.http.get("/v1/deployments", params={"page_size": 2})).json()
    second = (await service.http.get("/v1/deployments", params={"page_token": first["next_page_token"]})).json()

    assert [item["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next_page_token"] is None

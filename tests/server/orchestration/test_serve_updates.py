"""Updates of Ray Serve by several servers, one of them suspended, and on a cluster that other systems use too."""

import asyncio
import copy
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from tinyclip_server.database.engine import Database
from tinyclip_server.orchestration import age
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.serve import deployments, updates

from tests.server.deployments.demo import MODEL, applications, get, put
from tests.server.fakes import ScriptedServe
from tests.server.service import Service, Start, on_both_databases

ONE, TWO = "/v1/deployments/one", "/v1/deployments/two"
OURS = {"import_path": "tinyclip_workers.serving:build", "route_prefix": "/x"}


class SuspendedServe(ScriptedServe):
    """The cluster as one server calls it: its next PUT, or its next answer to a GET, waits until the test resumes it."""

    def __init__(self, cluster: ScriptedServe) -> None:
        super().__init__()
        self.cluster, self.reached, self.resumed = cluster, asyncio.Event(), asyncio.Event()
        self.suspends: str | None = None
        self.gets = 0

    async def put_serve_applications(self, body: dict[str, Any]) -> None:
        await self._suspend("put")
        await self.cluster.put_serve_applications(body)

    async def serve_status(self) -> dict[str, Any]:
        status = copy.deepcopy(await self.cluster.serve_status())
        self.gets += 1
        await self._suspend(f"get {self.gets}")
        return status

    async def _suspend(self, call: str) -> None:
        if self.suspends == call:
            self.reached.set()
            await self.resumed.wait()


def served(cluster: ScriptedServe) -> dict[str, str]:
    return {name: app["deployed_app_config"]["args"]["model"] for name, app in cluster.serve["applications"].items()}


async def end_lock_of_suspended(database: Database) -> None:
    """End the session that holds the lock, as PostgreSQL does after LOCK_SECONDS."""
    async with database.engine.connect() as connection:
        query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock"
        await connection.execute(text(query), {"lock": updates.SERVE_LOCK})


@pytest.fixture
def cluster() -> ScriptedServe:
    return ScriptedServe()


@pytest.fixture
async def second(start: Start, cluster: ScriptedServe) -> Service:
    service = await start(cluster)
    for _ in range(7):
        await service.register_model(MODEL)
    await put(service, ONE, model=f"{MODEL}@1")
    return service


async def begin_and_suspend(start: Start, cluster: ScriptedServe, at: str) -> tuple[SuspendedServe, asyncio.Task[None]]:
    """Start another server that is suspended in its round."""
    ray = SuspendedServe(cluster)
    ray.suspends = at
    first = await start(ray)
    round = asyncio.create_task(first.reconcile("deployments"))
    await ray.reached.wait()
    return ray, round


async def change_both(service: Service) -> None:
    await put(service, ONE, model=f"{MODEL}@2")
    await put(service, TWO, model=f"{MODEL}@7")
    await service.reconcile("deployments", 2)


class TestSuspendedServer:
    @on_both_databases
    async def test_one_that_has_read_its_target_sends_the_present_one(
        self, start: Start, second: Service, cluster: ScriptedServe
    ) -> None:
        ray, round = await begin_and_suspend(start, cluster, "get 1")
        await change_both(second)

        ray.resumed.set()
        await round

        assert served(cluster) == {"one": f"{MODEL}@2", "two": f"{MODEL}@7"}
        assert len(cluster.serve_bodies) == 1

    @pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
    async def test_one_that_has_lost_its_lock_sends_nothing(
        self, start: Start, second: Service, cluster: ScriptedServe
    ) -> None:
        ray, round = await begin_and_suspend(start, cluster, "get 2")
        await end_lock_of_suspended(second.app.state.services.db)
        await change_both(second)

        ray.resumed.set()
        await round

        assert served(cluster) == {"one": f"{MODEL}@2", "two": f"{MODEL}@7"}
        assert len(cluster.serve_bodies) == 1

    @pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
    async def test_while_one_holds_the_lock_the_other_waits(self, start: Start, second: Service, cluster: ScriptedServe) -> None:
        ray, round = await begin_and_suspend(start, cluster, "get 2")

        await second.reconcile("deployments")
        before = list(cluster.serve_bodies)
        ray.resumed.set()
        await round

        assert (before, len(cluster.serve_bodies)) == ([], 1)

    async def test_too_long_after_the_last_statement_nothing_is_sent(
        self, second: Service, cluster: ScriptedServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(updates, "SEND_SECONDS", -1.0)

        await second.reconcile("deployments")

        assert cluster.serve_bodies == []
        assert (await second.get(ONE))["state"] == "deploying"

    @on_both_databases
    async def test_what_arrives_too_late_is_repaired_by_the_next_round(
        self, start: Start, second: Service, cluster: ScriptedServe
    ) -> None:
        await second.reconcile("deployments")
        late = cluster.serve_bodies[-1]
        await change_both(second)
        await second.http.delete(ONE)
        await second.reconcile("deployments", 2)

        await cluster.put_serve_applications(late)
        rolled_back = served(cluster)
        await second.reconcile("deployments")

        assert (rolled_back, served(cluster)) == ({"one": f"{MODEL}@1"}, {"two": f"{MODEL}@7"})
        assert (await second.get(TWO))["state"] == "ready"

    async def test_a_late_application_is_removed_although_there_is_no_deployment_left(
        self, second: Service, cluster: ScriptedServe
    ) -> None:
        await second.reconcile("deployments")
        late = cluster.serve_bodies[-1]
        await second.http.delete(ONE)
        await second.reconcile("deployments", 2)

        await cluster.put_serve_applications(late)
        await second.reconcile("deployments")

        assert served(cluster) == {}

    async def test_the_same_version_with_other_replicas_is_repaired(self, second: Service, cluster: ScriptedServe) -> None:
        await second.reconcile("deployments")
        late = cluster.serve_bodies[-1]
        await put(second, ONE, model=f"{MODEL}@1", replicas={"min": 2, "max": 2})
        await second.reconcile("deployments")

        await cluster.put_serve_applications(late)
        await second.reconcile("deployments")

        assert applications(cluster)["one"]["deployments"][0]["num_replicas"] == 2

    async def test_an_old_observation_changes_no_state(
        self, start: Start, second: Service, cluster: ScriptedServe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await second.reconcile("deployments")
        cluster.statuses["one"] = {"status": "DEPLOY_FAILED", "message": "a moment ago"}
        monkeypatch.setattr(deployments, "MAX_AGE_SECONDS", -1.0)

        await second.reconcile("deployments")

        assert (await second.get(ONE))["state"] == "ready"


class TestSharedServe:
    """Other systems have applications on the same Ray Serve."""

    @pytest.fixture
    async def service(self, start: Start, cluster: ScriptedServe) -> Service:
        service = await start(cluster)
        await service.register_model(MODEL)
        await put(service)
        return service

    async def test_another_installations_deployments_are_kept(self, service: Service, cluster: ScriptedServe) -> None:
        tagged = {**OURS, "name": "tagged", "deployments": [{"name": "Student", "user_config": {"owner": "another"}}]}
        older = {**OURS, "name": "older", "args": {"artifacts": "s3://theirs"}, "deployments": [{"name": "Student"}]}
        cluster.serve = {
            "applications": {app["name"]: {"status": "RUNNING", "deployed_app_config": app} for app in (tagged, older)}
        }

        await service.reconcile("deployments")

        assert applications(cluster).keys() == {"demo", "tagged", "older"}
        assert applications(cluster)["tagged"] == tagged

    async def test_an_application_without_a_known_configuration_stops_the_update(
        self, service: Service, cluster: ScriptedServe
    ) -> None:
        cluster.serve = {"applications": {"theirs": {"status": "DEPLOYING", "source": "declarative"}}}

        await service.reconcile("deployments")

        deployment = await get(service)
        assert cluster.serve_bodies == []
        assert (deployment["state"], "configuration of theirs" in deployment["message"]) == ("unhealthy", True)

    @pytest.mark.parametrize(
        "app", [{"status": "RUNNING", "source": "imperative"}, {"status": "DELETING", "source": "declarative"}],
        ids=["deployed by a program", "being deleted"],
    )
    async def test_one_that_an_update_does_not_touch_is_not_listed(
        self, service: Service, cluster: ScriptedServe, app: dict[str, Any]
    ) -> None:
        cluster.serve = {"applications": {"theirs": app}}

        await service.reconcile("deployments")

        assert applications(cluster).keys() == {"demo"}

    async def test_a_taken_name_is_reported_and_the_application_kept(self, service: Service, cluster: ScriptedServe) -> None:
        theirs = {"name": "demo", "import_path": "their.code:app", "route_prefix": "/demo"}
        cluster.serve = {"applications": {"demo": {"status": "RUNNING", "deployed_app_config": theirs}}}
        await put(service, ONE)

        await service.reconcile("deployments", 2)

        deployment = await get(service)
        assert applications(cluster)["demo"] == theirs
        assert (deployment["state"], deployment["serving"]) == ("unhealthy", None)
        assert deployment["message"] == "Ray Serve has an application demo that this service did not create"
        assert (await service.get(ONE))["state"] == "ready"
        assert len(cluster.serve_bodies) == 1

    async def test_a_deployment_of_a_taken_name_can_be_deleted(self, service: Service, cluster: ScriptedServe) -> None:
        theirs = {"name": "demo", "import_path": "their.code:app"}
        cluster.serve = {"applications": {"demo": {"status": "RUNNING", "deployed_app_config": theirs}}}

        await service.http.delete("/v1/deployments/demo")
        await service.reconcile("deployments")

        assert (await service.http.get("/v1/deployments/demo")).status_code == 404
        assert cluster.serve["applications"].keys() == {"demo"}

    async def test_settings_of_a_running_serve_are_kept(self, service: Service, cluster: ScriptedServe) -> None:
        theirs = {"proxy_location": "EveryNode", "http_options": {"host": "0.0.0.0", "port": 80}, "target_capacity": 50.0}
        cluster.serve = {**theirs, "applications": {}}

        await service.reconcile("deployments")

        body = cluster.serve_bodies[-1]
        assert {name: body[name] for name in theirs} == theirs


@pytest.mark.parametrize("jump", [-100, 0, 100], ids=["set back", "not set", "set forward"])
def test_age_counts_the_clock_that_is_ahead(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    since = Age()
    monkeypatch.setattr(age, "now", lambda: since._wall + timedelta(seconds=jump))

    assert max(0, jump) <= since.seconds() < max(0, jump) + 60

"""Retries of failed and cancelled jobs: a new job continues from the last checkpoint."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.events import Worker, progress
from tests.server.service import Service, on_both_databases


async def failed(service: Service, **changes: object) -> Worker:
    """Submit a job whose first stage finishes and whose second fails at step 4."""
    worker = await service.running(**changes)
    worker.emit(progress(10, 0, loss=0.5), {"type": "stage.finished", "stage": 0})
    worker.emit({"type": "stage.started", "stage": 1, "data": {"steps": 10}}, progress(4, 1, loss=0.4))
    worker.emit({"type": "attempt.failed", "message": "the disk is full", "data": {"code": "io", "retryable": False}})
    await service.tick()
    assert (await service.job(worker.job))["state"] == "failed"
    return worker


async def retry(service: Service, job_id: str, status: int = 202, key: str | None = None) -> dict[str, Any]:
    return await service.call("POST", f"/v1/jobs/{job_id}/retry", status=status, key=key)


class TestRetry:
    @on_both_databases
    async def test_a_new_job_continues_and_the_ended_one_does_not_change(self, service: Service) -> None:
        old = await failed(service)
        before = await service.job(old.job)

        new = await retry(service, old.job)

        assert (new["state"], new["attempt"], new["retry_of"], new["name"]) == ("queued", 0, old.job, before["name"])
        assert [stage["state"] for stage in new["stages"]] == ["succeeded", "pending"]
        assert new["progress"] == before["progress"]
        after = await service.job(old.job)
        assert {**after, "etag": "", "actions": []} == {**before, "etag": "", "actions": []}
        assert (await service.events(old.job))[-1]["data"] == {"job": new["id"]}
        metrics = [await service.get(f"/v1/jobs/{job}/metrics") for job in (old.job, new["id"])]
        assert metrics[0] == metrics[1]

    async def test_its_worker_gets_the_job_whose_checkpoints_to_adopt(self, service: Service) -> None:
        old = await failed(service)
        new = await retry(service, old.job)

        await service.tick()

        worker = Worker(service.artifacts, await service.job(new["id"]))
        assert worker.spec()["adopts"] == [old.job]
        assert worker.spec()["spec"] == old.spec()["spec"]
        assert worker.spec()["model_version"] == 2

    async def test_a_retry_of_a_retry_may_adopt_from_both(self, service: Service) -> None:
        old = await failed(service)
        second = await retry(service, old.job)
        await service.http.post(f"/v1/jobs/{second['id']}/cancel")
        third = await retry(service, second["id"])

        await service.tick()

        assert Worker(service.artifacts, await service.job(third["id"])).spec()["adopts"] == [second["id"], old.job]

    async def test_it_has_all_its_attempts(self, service: Service) -> None:
        old = await failed(service, max_attempts=2)
        new = await retry(service, old.job)
        await service.tick()
        service.ray.jobs[f"tc-{new['id']}-a1"] = RayJobStatus.FAILED

        await service.tick()

        assert (await service.job(new["id"]))["state"] == "starting"

    async def test_repeated_with_the_same_key_it_is_the_same_job(self, service: Service) -> None:
        old = await failed(service)

        first = await retry(service, old.job, key="k")
        second = await retry(service, old.job, key="k")

        assert first == second

    async def test_a_concurrent_retry_is_a_conflict_that_names_the_first(self, service: Service) -> None:
        old = await failed(service)
        new = await retry(service, old.job)

        problem = await retry(service, old.job, 409)

        assert problem["code"] == "already_retried"
        assert new["id"] in problem["detail"]

    @pytest.mark.parametrize("state", ["queued", "starting", "running", "cancelling", "paused", "succeeded"])
    async def test_another_state_is_a_conflict_with_the_next_step(self, service: Service, state: str) -> None:
        job_id = await in_state(service, state)

        problem = await retry(service, job_id, 409)

        assert problem["code"] == "illegal_transition"
        assert problem["detail"].startswith(f"job {job_id} is {state}: only a failed or cancelled job can be retried; ")

    async def test_the_retried_job_cannot_be_deleted_while_the_retry_is_active(self, service: Service) -> None:
        old = await failed(service)
        new = await retry(service, old.job)

        refused = await service.http.delete(f"/v1/jobs/{old.job}")
        await service.http.post(f"/v1/jobs/{new['id']}/cancel")
        accepted = await service.http.delete(f"/v1/jobs/{old.job}")

        assert (refused.status_code, refused.json()["code"]) == (409, "checkpoints_in_use")
        assert new["id"] in refused.json()["detail"]
        assert accepted.status_code == 204


async def in_state(service: Service, state: str) -> str:
    """Submit a job, bring it into a state, and return its id."""
    if state == "succeeded":
        return (await service.succeeded("emoji"))["id"]
    if state in ("queued", "paused"):
        job = await service.submit()
        if state == "paused":
            await service.http.post(f"/v1/jobs/{job['id']}/pause")
        return job["id"]
    worker = await (service.started() if state == "starting" else service.running())
    if state == "cancelling":
        await service.http.post(f"/v1/jobs/{worker.job}/cancel")
    return worker.job

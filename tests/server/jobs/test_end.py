"""Cancelling, pausing, resuming and deleting jobs: the requests, and when the states follow."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.events import Worker
from tests.server.service import Service, Start


async def request(service: Service, job_id: str, action: str, status: int = 202) -> dict[str, Any]:
    return await service.call("POST", f"/v1/jobs/{job_id}/{action}", status=status)


def stop(worker: Worker, desired: str) -> None:
    """Let an attempt stop on request."""
    worker.emit({"type": "attempt.stopped", "data": {"desired": desired, "step": 5}})


class TestCancel:
    async def test_a_queued_job_never_runs(self, service: Service) -> None:
        job = await service.submit()

        assert (await request(service, job["id"], "cancel"))["state"] == "cancelled"

        await service.tick(2)
        assert service.ray.submissions == []
        assert [stage["state"] for stage in (await service.job(job["id"]))["stages"]] == ["cancelled", "cancelled"]

    async def test_a_running_job_is_cancelled_once_its_attempt_has_stopped(self, service: Service) -> None:
        worker = await service.running()

        assert (await request(service, worker.job, "cancel"))["state"] == "cancelling"
        await service.tick(2)
        assert worker.control() == {"fence": 1, "desired": "cancel"}
        assert (await service.job(worker.job))["state"] == "cancelling"
        stop(worker, "cancel")
        await service.tick()

        assert (await service.job(worker.job))["state"] == "cancelled"
        assert service.ray.stopped == []

    async def test_an_attempt_that_does_not_stop_is_stopped_by_ray(self, start: Start) -> None:
        service = await start(stop_grace_seconds=0)
        worker = await service.running()
        await request(service, worker.job, "cancel")

        await service.tick()
        assert service.ray.stopped == [f"tc-{worker.job}-a1"]
        assert (await service.job(worker.job))["state"] == "cancelling"
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.STOPPED
        await service.tick()

        assert (await service.job(worker.job))["state"] == "cancelled"

    async def test_a_claimed_job_that_was_not_submitted_is_cancelled_without_ray(self, service: Service) -> None:
        service.ray.unavailable = True
        job = await service.submit()
        await service.tick()
        await request(service, job["id"], "cancel")
        await service.tick()
        assert (await service.job(job["id"]))["state"] == "cancelling"

        service.ray.unavailable = False
        await service.tick()

        assert (await service.job(job["id"]))["state"] == "cancelled"
        assert service.ray.submissions == []

    async def test_repeated_it_is_a_no_op(self, service: Service) -> None:
        worker = await service.running()

        await request(service, worker.job, "cancel")
        await request(service, worker.job, "cancel")

        types = [event["type"] for event in await service.events(worker.job)]
        assert types.count("job.cancelling") == 1

    async def test_a_success_meanwhile_wins(self, service: Service) -> None:
        worker = await service.running()
        await request(service, worker.job, "cancel")
        worker.succeed()

        await service.tick()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_an_ended_job_cannot_be_cancelled(self, service: Service) -> None:
        job = await service.succeeded("emoji")

        problem = await request(service, job["id"], "cancel", status=409)

        assert problem["code"] == "illegal_transition"

    async def test_an_unknown_job_is_not_found(self, service: Service) -> None:
        assert (await request(service, "job_none", "cancel", status=404))["code"] == "no_such_job"

    async def test_the_request_survives_a_restart(self, start: Start) -> None:
        first = await start()
        worker = await first.running()
        await request(first, worker.job, "cancel")

        await first.lose_leases()
        second = await start(first.ray)
        await second.tick()

        assert worker.control()["desired"] == "cancel"


class TestPauseAndResume:
    async def test_a_resumed_job_continues_as_the_next_attempt(self, service: Service) -> None:
        worker = await service.running(max_attempts=1)
        await request(service, worker.job, "pause")
        await service.tick()
        assert worker.control() == {"fence": 1, "desired": "pause"}
        stop(worker, "pause")
        await service.tick()
        assert (await service.job(worker.job))["state"] == "paused"

        assert (await request(service, worker.job, "resume"))["state"] == "queued"
        await service.tick()

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("starting", 2)
        assert worker.control() == {"fence": 2, "desired": "run"}

    async def test_a_paused_job_lets_the_next_one_run(self, service: Service) -> None:
        worker = await service.running()
        other = await service.submit()
        await request(service, worker.job, "pause")
        stop(worker, "pause")

        await service.tick(2)

        assert (await service.job(other["id"]))["state"] == "starting"

    async def test_a_job_whose_driver_dies_while_pausing_is_paused(self, service: Service) -> None:
        worker = await service.running()
        await request(service, worker.job, "pause")
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED

        await service.tick()

        assert (await service.job(worker.job))["state"] == "paused"

    async def test_a_queued_job_can_be_paused(self, service: Service) -> None:
        job = await service.submit()
        assert (await request(service, job["id"], "pause"))["state"] == "paused"

        await service.tick()

        assert service.ray.submissions == []
        assert (await request(service, job["id"], "cancel"))["state"] == "cancelled"

    @pytest.mark.parametrize("action", ["pause", "resume"])
    async def test_an_ended_job_is_a_conflict(self, service: Service, action: str) -> None:
        job = await service.succeeded("emoji")

        assert (await request(service, job["id"], action, status=409))["code"] == "illegal_transition"

    async def test_a_pausing_job_cannot_be_resumed(self, service: Service) -> None:
        worker = await service.running()
        await request(service, worker.job, "pause")

        assert (await request(service, worker.job, "resume", status=409))["code"] == "illegal_transition"

    async def test_a_running_job_cannot_be_resumed_into_a_second_attempt(self, service: Service) -> None:
        worker = await service.running()

        problem = await request(service, worker.job, "resume", status=409)

        assert problem["detail"] == f"job {worker.job} is running: only a paused job can be resumed; cancel or pause it first"
        await service.tick()
        assert (await service.job(worker.job))["attempt"] == 1


class TestDelete:
    async def test_a_job_that_has_not_ended_is_a_conflict(self, service: Service) -> None:
        worker = await service.running()

        response = await service.http.delete(f"/v1/jobs/{worker.job}")

        assert (response.status_code, response.json()["code"]) == (409, "job_not_terminal")
        assert (service.artifacts / "jobs" / worker.job).exists()

    async def test_a_stale_etag_is_refused(self, service: Service) -> None:
        old = await service.submit()
        await request(service, old["id"], "cancel")

        response = await service.http.delete(f"/v1/jobs/{old['id']}", headers={"If-Match": f'"{old["etag"]}"'})

        assert response.status_code == 412

"""The scheduler while jobs queue, Ray fails, attempts die and disks are full."""

import errno
import os
from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.orchestration.ray_jobs.observation import Observation
from tinyclip_server.orchestration.scheduling import attempts
from tinyclip_server.orchestration.scheduling.attempts import observe_attempt

from tests.server.events import Worker
from tests.server.service import Service, Start, on_both_databases


class TestQueue:
    async def test_higher_priority_goes_first_then_the_older(self, service: Service) -> None:
        old, new, urgent = [await service.submit(name=name) for name in ("old", "new", "urgent")]
        await service.http.patch(f"/v1/jobs/{urgent['id']}", json={"priority": 5})
        order = []

        for _ in range(3):
            await service.tick()
            running = (await service.http.get("/v1/jobs", params={"state": "starting"})).json()["items"]
            order.append(running[0]["id"])
            worker = Worker(service.artifacts, running[0])
            worker.start()
            worker.succeed()
            await service.tick()

        assert order == [urgent["id"], old["id"], new["id"]]

    @on_both_databases
    async def test_at_most_the_configured_number_runs_at_once(self, start: Start) -> None:
        service = await start(max_running_jobs=2)
        for _ in range(4):
            await service.submit()

        await service.tick(3)

        assert len(service.ray.submissions) == 2

    async def test_two_servers_share_one_queue(self, start: Start) -> None:
        first = await start(max_running_jobs=3)
        second = await start(first.ray, max_running_jobs=3)
        for _ in range(3):
            await first.submit()

        await first.tick(2)
        await second.tick(2)

        assert len(first.ray.submissions) == len(set(first.ray.submissions)) == 3


class TestFullDisk:
    async def test_one_event_records_it_and_the_job_continues_when_there_is_room(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        control = service.artifacts / "jobs"

        async def full(path: str, data: bytes, **limit: float) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(service.artifacts / path))

        with monkeypatch.context() as patch:
            patch.setattr(service.app.state.services.store, "write_bytes", full)
            job = await service.submit()
            await service.tick(3)
            waiting = await service.job(job["id"])
        held_up = [event for event in await service.events(job["id"]) if event["type"] == "attempt.held_up"]
        await service.tick()

        assert waiting["state"] == "starting"
        assert [event["attempt"] for event in held_up] == [1]
        assert f"No space left on device: '{control}/{job['id']}/control.json'" in held_up[0]["message"]
        assert service.ray.submissions == [f"tc-{job['id']}-a1"]
        assert [event["type"] for event in await service.events(job["id"])][-2:] == ["attempt.held_up", "attempt.submitted"]


class TestRayFailures:
    async def test_while_ray_is_unavailable_the_job_waits(self, service: Service) -> None:
        service.ray.unavailable = True
        job = await service.submit()
        await service.tick(3)
        assert (await service.job(job["id"]))["state"] == "starting"

        service.ray.unavailable = False
        await service.tick()

        assert service.ray.submissions == [f"tc-{job['id']}-a1"]

    async def test_an_unavailable_ray_is_not_a_lost_attempt(self, service: Service) -> None:
        worker = await service.running()
        service.ray.unavailable = True

        await service.tick(5)

        assert (await service.job(worker.job))["state"] == "running"

    async def test_a_refusal_fails_the_job_with_rays_reason(self, service: Service) -> None:
        service.ray.refusal_reason = "no such runtime"
        job = await service.submit()

        await service.tick()

        job = await service.job(job["id"])
        assert (job["state"], job["error"]["code"]) == ("failed", "ray_refused")
        [attempt] = await service.items(f"/v1/jobs/{job['id']}/attempts")
        assert (attempt["outcome"], attempt["cause"]) == ("failed", job["error"]["message"])
        assert "no such runtime" in job["error"]["message"]

    async def test_an_attempt_that_ray_does_not_know_is_retried_after_a_grace_period(self, start: Start) -> None:
        service = await start(unknown_grace_seconds=0)
        worker = await service.running()
        service.ray.jobs.clear()

        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("starting", 2)

    async def test_an_attempt_that_ray_knows_again_continues(self, start: Start) -> None:
        service = await start(unknown_grace_seconds=3600)
        worker = await service.running()
        known = dict(service.ray.jobs)
        service.ray.jobs.clear()
        await service.tick()

        service.ray.jobs.update(known)
        await service.tick()

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("running", 1)


class TestEndedAttempts:
    @pytest.mark.parametrize("status", [RayJobStatus.FAILED, RayJobStatus.SUCCEEDED, RayJobStatus.STOPPED])
    async def test_a_driver_that_ends_without_a_final_event_is_retried(
        self, service: Service, status: RayJobStatus
    ) -> None:
        worker = await service.running()
        service.ray.jobs[f"tc-{worker.job}-a1"] = status

        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"], job["error"]) == ("starting", 2, None)
        assert service.ray.submissions == [f"tc-{worker.job}-a1", f"tc-{worker.job}-a2"]
        assert worker.control() == {"fence": 2, "desired": "run"}

    async def test_the_fence_is_raised_before_the_next_attempt_is_submitted(self, service: Service) -> None:
        worker = await service.running()
        fences = []
        submit = service.ray.submit_job

        async def watched(*args: Any) -> None:
            fences.append(worker.control()["fence"])
            await submit(*args)

        service.ray.submit_job = watched  # type: ignore[method-assign]
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED

        await service.tick(2)

        assert fences == [2]

    async def test_the_final_event_outweighs_the_status_of_ray(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED

        await service.tick()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_after_max_attempts_the_job_fails_with_the_reason(self, service: Service) -> None:
        worker = await service.running(max_attempts=2)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick(2)
        service.ray.jobs[f"tc-{worker.job}-a2"] = RayJobStatus.FAILED
        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["error"]["code"], job["error"]["attempt"]) == ("failed", "attempt_lost", 2)
        assert job["stages"][0]["state"] == "failed"

    async def test_a_non_retryable_failure_ends_the_job(self, service: Service) -> None:
        worker = await service.running()
        data = {"code": "no_samples", "retryable": False, "stage": 0}
        worker.emit({"type": "attempt.failed", "message": "/data/x.tar holds no picture", "data": data})

        await service.tick(2)

        job = await service.job(worker.job)
        assert job["state"] == "failed"
        assert job["error"] == {
            "code": "no_samples", "message": "/data/x.tar holds no picture", "stage": 0, "attempt": 1, "retryable": False,
        }

    async def test_a_retryable_failure_is_retried(self, service: Service) -> None:
        worker = await service.running()
        worker.emit({"type": "attempt.failed", "message": "connection reset", "data": {"code": "io", "retryable": True}})

        await service.tick()

        assert (await service.job(worker.job))["attempt"] == 2

    async def test_a_success_without_a_model_is_a_failure(self, service: Service) -> None:
        worker = await service.running()
        worker.emit({"type": "attempt.succeeded"})

        await service.tick()

        assert (await service.job(worker.job))["error"]["code"] == "no_model"

    async def test_an_invalid_model_document_is_a_failure(self, service: Service) -> None:
        worker = await service.running()
        worker.emit({"type": "model.exported", "data": {"params": 3}}, {"type": "attempt.succeeded"})

        await service.tick()

        assert (await service.job(worker.job))["error"]["code"] == "bad_model_document"
        assert (await service.http.get("/v1/models")).json()["items"] == []

    async def test_a_line_that_is_not_an_event_is_skipped(self, service: Service) -> None:
        worker = await service.running()
        (worker.folder / "00000003.jsonl").write_text('{"half": \n')
        worker.step(4, loss=1.0)

        await service.tick()

        assert (await service.job(worker.job))["progress"]["step"] == 4


@on_both_databases
class TestInvalidEvents:
    """Events are data from outside: none may keep a job from ending."""

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "progress", "stage": 0, "data": {}},
            {"type": "progress", "stage": 0, "data": {"step": "third"}},
            {"type": "progress", "stage": 9, "data": {"step": 1}},
            {"type": "progress", "stage": 0, "data": {"step": 3, "metrics": {"loss": float("nan"), "lr": float("inf")}}},
            {"type": "stage.started", "stage": 0, "data": {"steps": 10, "student": {"image_params": "many"}}},
            {"type": "stage.finished", "stage": -1},
            {"type": "evaluation", "stage": 0, "data": {"task": "val"}},
            {"type": "attempt.failed", "data": {"stage": "the first", "code": "x"}},
            {"type": "log", "message": "a NUL \x00 and half a pair \ud83d", "data": {"level": "info", "source": "driver"}},
            {"type": "something.new", "message": "\x00", "data": {"\x00": ["\ud83d", {"deep": "\x00"}]}},
        ],
    )
    async def test_it_is_skipped(self, service: Service, event: dict[str, Any]) -> None:
        worker = await service.running()
        worker.emit(event)
        worker.succeed()

        await service.tick()

        job = await service.job(worker.job)
        assert job["state"] == "succeeded"
        assert [stage["state"] for stage in job["stages"]] == ["succeeded", "succeeded"]
        assert (await service.http.get(f"/v1/jobs/{worker.job}/metrics")).json()["series"] == {}
        lines = (await service.http.get(f"/v1/jobs/{worker.job}/logs")).json()["items"]
        assert [line["message"] for line in lines] == (["a NUL � and half a pair �"] if event["type"] == "log" else [])


class TestControlFile:
    async def test_what_a_stale_server_has_restored_is_corrected(self, service: Service) -> None:
        worker = await service.running()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick(2)
        path = service.artifacts / "jobs" / worker.job / "control.json"
        path.write_text('{"fence":1,"desired":"cancel"}')

        await service.tick()

        assert worker.control() == {"fence": 2, "desired": "run"}

    async def test_a_server_delayed_beyond_its_lease_changes_nothing(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await start()
        worker = await service.running()
        await service.http.post(f"/v1/jobs/{worker.job}/cancel")
        await service.lose_leases()
        (claim,) = await service.app.state.scheduler._claim()
        monkeypatch.setattr(attempts, "now", lambda: claim.lease_until)

        seen = await observe_attempt(service.app.state.services, claim, ask_ray=True)

        assert seen == Observation(submitted=True)
        assert worker.control() == {"fence": 1, "desired": "run"}

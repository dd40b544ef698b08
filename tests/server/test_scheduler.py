"""What the scheduler does when things die, at whichever point."""

import json
from typing import Any

import pytest
from sqlalchemy import update
from tinyclip_server import scheduler as scheduler_module
from tinyclip_server.attempts import Claim, Observation
from tinyclip_server.ray_gateway import RayJobStatus
from tinyclip_server.tables import JobRow

from tests.server.conftest import Service, Start, on_both_databases
from tests.server.fakes import Worker


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
    async def test_only_so_many_run_at_once(self, start: Start) -> None:
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


class TestRayTrouble:
    async def test_while_ray_is_away_the_job_waits(self, service: Service) -> None:
        service.ray.away = True
        job = await service.submit()
        await service.tick(3)
        assert (await service.job(job["id"]))["state"] == "starting"

        service.ray.away = False
        await service.tick()

        assert service.ray.submissions == [f"tc-{job['id']}-a1"]

    async def test_ray_away_is_not_a_dead_attempt(self, service: Service) -> None:
        worker = await service.running()
        service.ray.away = True

        await service.tick(5)

        assert (await service.job(worker.job))["state"] == "running"

    async def test_a_refusal_fails_the_job_with_rays_reason(self, service: Service) -> None:
        service.ray.refuses = "no such runtime"
        job = await service.submit()

        await service.tick()

        job = await service.job(job["id"])
        assert (job["state"], job["error"]["code"]) == ("failed", "ray_refused")
        assert "no such runtime" in job["error"]["message"]

    async def test_an_attempt_that_ray_forgot_is_repeated_after_a_grace(self, start: Start) -> None:
        service = await start(unknown_grace_seconds=0)
        worker = await service.running()
        service.ray.jobs.clear()

        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("starting", 2)

    async def test_an_attempt_that_ray_finds_again_goes_on(self, start: Start) -> None:
        service = await start(unknown_grace_seconds=3600)
        worker = await service.running()
        known = dict(service.ray.jobs)
        service.ray.jobs.clear()
        await service.tick()

        service.ray.jobs.update(known)
        await service.tick()

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("running", 1)


class TestDeadAttempts:
    @pytest.mark.parametrize("status", [RayJobStatus.FAILED, RayJobStatus.SUCCEEDED, RayJobStatus.STOPPED])
    async def test_a_driver_that_ends_without_a_word_is_followed_by_the_next(
        self, service: Service, status: RayJobStatus
    ) -> None:
        worker = await service.running()
        service.ray.jobs[f"tc-{worker.job}-a1"] = status

        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"], job["error"]) == ("starting", 2, None)
        assert service.ray.submissions == [f"tc-{worker.job}-a1", f"tc-{worker.job}-a2"]
        assert worker.control() == {"fence": 2, "desired": "run"}

    async def test_the_fence_is_up_before_the_next_attempt_is_submitted(self, service: Service) -> None:
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

    async def test_the_last_word_counts_more_than_rays_status(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED

        await service.tick()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_after_max_attempts_the_job_fails_and_says_why(self, service: Service) -> None:
        worker = await service.running(max_attempts=2)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick(2)
        service.ray.jobs[f"tc-{worker.job}-a2"] = RayJobStatus.FAILED
        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["error"]["code"], job["error"]["attempt"]) == ("failed", "attempt_lost", 2)
        assert job["stages"][0]["state"] == "failed"

    async def test_a_failure_that_would_repeat_is_not_repeated(self, service: Service) -> None:
        worker = await service.running()
        data = {"code": "no_samples", "retryable": False, "stage": 0}
        worker.tell({"type": "attempt.failed", "message": "/data/x.tar holds no picture", "data": data})

        await service.tick(2)

        job = await service.job(worker.job)
        assert job["state"] == "failed"
        assert job["error"] == {
            "code": "no_samples", "message": "/data/x.tar holds no picture", "stage": 0, "attempt": 1, "retryable": False,
        }

    async def test_a_failure_that_may_pass_is_tried_again(self, service: Service) -> None:
        worker = await service.running()
        worker.tell({"type": "attempt.failed", "message": "connection reset", "data": {"code": "io", "retryable": True}})

        await service.tick()

        assert (await service.job(worker.job))["attempt"] == 2

    async def test_a_success_without_a_model_is_a_failure(self, service: Service) -> None:
        worker = await service.running()
        worker.tell({"type": "attempt.succeeded"})

        await service.tick()

        assert (await service.job(worker.job))["error"]["code"] == "no_model"

    async def test_a_model_document_that_is_none_is_a_failure(self, service: Service) -> None:
        worker = await service.running()
        worker.tell({"type": "model.exported", "data": {"params": 3}}, {"type": "attempt.succeeded"})

        await service.tick()

        assert (await service.job(worker.job))["error"]["code"] == "bad_model_document"
        assert (await service.http.get("/v1/models")).json()["items"] == []

    async def test_a_line_that_is_no_event_is_passed_over(self, service: Service) -> None:
        worker = await service.running()
        (worker.folder / "00000003.jsonl").write_text('{"half": \n')
        worker.step(4, loss=1.0)

        await service.tick()

        assert (await service.job(worker.job))["progress"]["step"] == 4


class TestCrashPoints:
    """The process may be killed between any two breaths; the next one's round must end the same."""

    async def test_killed_after_the_claim(self, start: Start) -> None:
        first = await start(lease_seconds=0.01)
        job = await first.submit()
        await first.app.state.scheduler._claim()

        second = await start(first.ray)
        await second.tick()

        assert first.ray.submissions == [f"tc-{job['id']}-a1"]
        assert (await second.job(job["id"]))["attempt"] == 1

    @on_both_databases
    async def test_killed_after_the_submission(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        first = await start(lease_seconds=0.01)
        job = await first.submit()
        with monkeypatch.context() as patch:
            patch.setattr(first.app.state.scheduler, "_apply", _killed)
            await first.tick()

        second = await start(first.ray)
        await second.tick()
        worker = Worker(second.artifacts, await second.job(job["id"]))
        worker.start()
        worker.succeed()
        await second.tick()

        assert set(first.ray.submissions) == {f"tc-{job['id']}-a1"}
        assert (await second.job(job["id"]))["state"] == "succeeded"
        types = [event["type"] for event in await second.events(job["id"])]
        assert types.count("attempt.submitted") == 1

    @on_both_databases
    async def test_killed_while_applying_events(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        first = await start(lease_seconds=0.01)
        worker = await first.running()
        for step in range(1, 6):
            worker.step(step, loss=float(step))
        with monkeypatch.context() as patch:
            patch.setattr(scheduler_module, "apply_event", _killed_at_the_third())
            await first.tick()

        second = await start(first.ray)
        await second.tick()

        events = [event for event in await second.events(worker.job) if event["type"] == "progress"]
        assert [event["data"]["step"] for event in events] == [1, 2, 3, 4, 5]
        points = (await second.http.get(f"/v1/jobs/{worker.job}/metrics")).json()["series"]["loss"]
        assert [point["step"] for point in points] == [1, 2, 3, 4, 5]

    async def test_away_for_hours_it_catches_up_without_loss_or_repeat(self, start: Start) -> None:
        first = await start(lease_seconds=0.01)
        worker = await first.running()
        for step in range(1, 451):
            worker.step(step, loss=1.0)
        worker.succeed()

        second = await start(first.ray)
        await second.tick(3)

        assert (await second.job(worker.job))["state"] == "succeeded"
        metrics = await second.http.get(f"/v1/jobs/{worker.job}/metrics", params={"max_points": 1000})
        assert len(metrics.json()["series"]["loss"]) == 450

    async def test_a_stale_scheduler_writes_nothing(self, start: Start) -> None:
        first = await start(lease_seconds=0.01)
        worker = await first.running()
        (claim,) = await first.app.state.scheduler._claim()
        second = await start(first.ray)
        await second.tick()

        seen = Observation(control="9:cancel", submitted=True, asked=True, status=RayJobStatus.FAILED, caught_up=True)
        await first.app.state.scheduler._apply(claim, seen)

        job = await second.job(worker.job)
        assert (job["state"], job["attempt"]) == ("running", 1)

    async def test_a_living_schedulers_job_is_not_taken(self, start: Start) -> None:
        first = await start(lease_seconds=3600)
        await first.running()
        second = await start(first.ray)

        assert await second.app.state.scheduler._claim() == []

    async def test_one_jobs_trouble_does_not_hold_the_others(self, start: Start) -> None:
        service = await start(max_running_jobs=2)
        poisoned = await service.running()
        fine = await service.running()
        async with service.app.state.services.db.write() as session:
            await session.execute(update(JobRow).where(JobRow.id == poisoned.job).values(resolved_spec={"spec_version": 99}))
        fine.step(3, loss=1.0)

        await service.tick()

        assert (await service.job(fine.job))["progress"]["step"] == 3


class TestServiceStopped:
    async def test_jobs_are_queued_again_and_it_is_nobodys_failure(self, service: Service) -> None:
        worker = await service.running(max_attempts=1)
        worker.step(4, loss=1.0)

        await service.app.state.scheduler.settle()

        job = await service.job(worker.job)
        assert (job["state"], job["progress"]["step"]) == ("queued", 4)
        await service.tick()
        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("starting", 2)
        assert json.loads((service.artifacts / "jobs" / worker.job / "control.json").read_text())["fence"] == 2

    async def test_a_success_that_was_not_read_yet_stays_one(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()

        await service.app.state.scheduler.settle()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_a_cancel_that_was_under_way_is_done(self, service: Service) -> None:
        worker = await service.running()
        await service.http.post(f"/v1/jobs/{worker.job}/cancel")

        await service.app.state.scheduler.settle()

        assert (await service.job(worker.job))["state"] == "cancelled"


async def _killed(claim: Claim, seen: Observation) -> None:
    raise RuntimeError("killed")


def _killed_at_the_third() -> Any:
    real, calls = scheduler_module.apply_event, 0

    async def apply(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("killed")
        await real(*args)

    return apply

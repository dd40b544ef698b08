"""A scheduler killed between claim, observe and apply, and a stopped service: the next one continues with the same result."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import update
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import JobRow
from tinyclip_server.local import supervisor
from tinyclip_server.orchestration.ray_jobs import event_segments
from tinyclip_server.orchestration.ray_jobs.observation import Observation
from tinyclip_server.orchestration.scheduling import scheduler as scheduler_module
from tinyclip_server.orchestration.scheduling.attempts import Claim

from tests.server.events import Worker
from tests.server.service import Service, Start, eventually, on_both_databases


class TestCrashPoints:
    async def test_killed_after_the_claim(self, start: Start) -> None:
        first = await start()
        job = await first.submit()
        await first.app.state.scheduler._claim()

        await first.lose_leases()
        second = await start(first.ray)
        await second.tick()

        assert first.ray.submissions == [f"tc-{job['id']}-a1"]
        assert (await second.job(job["id"]))["attempt"] == 1

    @on_both_databases
    async def test_killed_after_the_submission(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        first = await start()
        job = await first.submit()
        with monkeypatch.context() as patch:
            patch.setattr(first.app.state.scheduler, "_apply", _killed)
            await first.tick()

        await first.lose_leases()
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
        first = await start()
        worker = await first.running()
        for step in range(1, 6):
            worker.step(step, loss=float(step))
        with monkeypatch.context() as patch:
            patch.setattr(scheduler_module, "apply_event", _killed_at_the_third())
            await first.tick()

        await first.lose_leases()
        second = await start(first.ray)
        await second.tick()

        events = [event for event in await second.events(worker.job) if event["type"] == "progress"]
        assert [event["data"]["step"] for event in events] == [1, 2, 3, 4, 5]
        points = (await second.http.get(f"/v1/jobs/{worker.job}/metrics")).json()["series"]["loss"]
        assert [point["step"] for point in points] == [1, 2, 3, 4, 5]

    async def test_down_for_hours_it_catches_up_without_loss_or_repetition(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_segments, "MAX_SEGMENTS", 20)
        first = await start()
        worker = await first.running()
        for step in range(1, 46):
            worker.step(step, loss=1.0)
        worker.succeed()

        await first.lose_leases()
        second = await start(first.ray)
        await second.tick(3)

        assert (await second.job(worker.job))["state"] == "succeeded"
        metrics = await second.http.get(f"/v1/jobs/{worker.job}/metrics", params={"max_points": 1000})
        assert len(metrics.json()["series"]["loss"]) == 45

    async def test_a_stale_scheduler_writes_nothing(self, start: Start) -> None:
        first = await start()
        worker = await first.running()
        (claim,) = await first.app.state.scheduler._claim()
        await first.lose_leases()
        second = await start(first.ray)
        await second.tick()

        seen = Observation(control="9:cancel", submitted=True, answered=True, status=RayJobStatus.FAILED, caught_up=True)
        await first.app.state.scheduler._apply(claim, seen)

        job = await second.job(worker.job)
        assert (job["state"], job["attempt"]) == ("running", 1)

    async def test_two_servers_catch_up_although_a_slow_store_outlasts_their_leases(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_segments, "READING_SECONDS", 0.1, raising=False)
        first = await start(lease_seconds=0.4)
        worker = await first.running()
        second = await start(first.ray, lease_seconds=0.4)
        for step in range(1, 61):
            worker.step(step % 10, loss=1.0)
        for server in (first, second):
            _slow_down_events(server, 0.01, monkeypatch)

        rounds = [asyncio.create_task(_tick_for_ever(server)) for server in (first, second)]
        async def has_caught_up() -> bool:
            return await _steps(first, worker.job) >= 60

        await eventually(has_caught_up, seconds=30)
        await asyncio.sleep(0.5)  # a few rounds more, which repeat nothing
        for each in rounds:
            each.cancel()

        assert await _steps(first, worker.job) == 60

    async def test_the_job_of_a_running_scheduler_is_not_claimed(self, start: Start) -> None:
        first = await start(lease_seconds=3600)
        await first.running()
        second = await start(first.ray)

        assert await second.app.state.scheduler._claim() == []

    async def test_a_job_that_raises_does_not_block_the_others(self, start: Start) -> None:
        service = await start(max_running_jobs=2)
        poisoned = await service.running()
        fine = await service.running()
        async with service.app.state.services.db.write() as session:
            await session.execute(update(JobRow).where(JobRow.id == poisoned.job).values(resolved_spec={"spec_version": 99}))
        fine.step(3, loss=1.0)

        await service.tick()

        assert (await service.job(fine.job))["progress"]["step"] == 3


class TestServiceStopped:
    async def test_jobs_are_queued_again_without_counting_a_failure(self, service: Service) -> None:
        worker = await service.running(max_attempts=1)
        worker.step(4, loss=1.0)

        await service.app.state.scheduler.interrupt_all()

        job = await service.job(worker.job)
        assert (job["state"], job["progress"]["step"]) == ("queued", 4)
        [attempt] = await service.items(f"/v1/jobs/{worker.job}/attempts")
        assert (attempt["outcome"], attempt["cause"]) == ("interrupted", "its cluster was stopped")
        await service.tick()
        job = await service.job(worker.job)
        assert (job["state"], job["attempt"]) == ("starting", 2)
        assert json.loads((service.artifacts / "jobs" / worker.job / "control.json").read_text())["fence"] == 2

    async def test_a_success_that_was_not_read_yet_counts(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()

        await service.app.state.scheduler.interrupt_all()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_a_cancel_in_progress_is_completed(self, service: Service) -> None:
        worker = await service.running()
        await service.http.post(f"/v1/jobs/{worker.job}/cancel")

        await service.app.state.scheduler.interrupt_all()

        assert (await service.job(worker.job))["state"] == "cancelled"


    @pytest.mark.parametrize("broken", ["the store", "the database"])
    async def test_a_start_waits_for_what_is_away_and_then_ends_them(
        self, start: Start, service: Service, monkeypatch: pytest.MonkeyPatch, broken: str
    ) -> None:
        monkeypatch.setattr(scheduler_module, "RETRY_SECONDS", 0.01)
        worker = await service.running(max_attempts=1)
        worker.step(4, loss=1.0)
        stored = (AsyncArtifactsStore, "read_if_exists")
        target, name = stored if broken == "the store" else (scheduler_module.Scheduler, "_lease")
        call, failed = getattr(target, name), []

        async def away(self: Any, *args: Any) -> Any:
            if len(failed) < 3 and (broken == "the database" or "events" in args[0]):
                failed.append(True)
                raise OSError("away")
            return await call(self, *args)

        monkeypatch.setattr(target, name, away)
        again = await start(schedule=True, cluster_lost=True, tick_seconds=0.01)

        async def begun() -> bool:
            return bool(again.ray.submissions)

        await eventually(begun)
        job = await again.job(worker.job)
        assert (job["state"], job["attempt"], job["progress"]["step"], len(failed)) == ("starting", 2, 4, 3)

    async def test_a_stop_does_not_fail_while_the_store_is_away(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = await service.running()
        monkeypatch.setattr(supervisor, "STORE_SECONDS", 0.1)

        async def away(self: Any, path: str) -> Any:
            raise OSError("away")

        monkeypatch.setattr(AsyncArtifactsStore, "read_if_exists", away)

        await supervisor._end_attempts(service.settings)

        assert (await service.job(worker.job))["state"] == "running"


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


def _slow_down_events(service: Service, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every read of an event segment take this long."""
    store = service.app.state.services.store
    read = store.read_if_exists

    async def slow(path: str) -> bytes | None:
        await asyncio.sleep(seconds if "/events/" in path else 0)
        return await read(path)

    monkeypatch.setattr(store, "read_if_exists", slow)


async def _steps(service: Service, job: str) -> int:
    return [event["type"] for event in await service.events(job)].count("progress")


async def _tick_for_ever(service: Service) -> None:
    while True:
        await service.tick()
        await asyncio.sleep(0.05)

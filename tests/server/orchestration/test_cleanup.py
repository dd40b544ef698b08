"""The removal of ended attempts and deleted jobs, also by the next round after a kill between two steps."""

import json
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import func, select
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.tables import AttemptRow, EventRow, JobLabelRow, JobRow, MetricPointRow, StageRow
from tinyclip_server.jobs import cleanup

from tests.server.events import Worker
from tests.server.service import Service, Start, on_both_databases


async def clean(service: Service) -> None:
    await cleanup.reconcile(service.app.state.services)


async def rows(service: Service) -> list[int]:
    """Return the number of rows of jobs and of everything that belongs to them."""
    async with service.app.state.services.db.read() as session:
        tables = (JobRow, JobLabelRow, StageRow, EventRow, MetricPointRow)
        return [await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


class TestDeletedJobs:
    @on_both_databases
    async def test_everything_of_it_is_removed(self, service: Service) -> None:
        job = await service.succeeded("emoji")

        answer = await service.http.delete(f"/v1/jobs/{job['id']}")

        assert answer.status_code == 204
        assert await rows(service) == [0, 0, 0, 0, 0]
        assert not (service.artifacts / "jobs" / job["id"]).exists()
        assert (await service.http.get("/v1/models/emoji/versions/1")).json()["job"] == job["id"]

    @pytest.mark.parametrize("killed", ["before the files", "after the files"])
    async def test_after_a_kill_it_is_hidden_and_the_next_round_removes_it(
        self, service: Service, monkeypatch: pytest.MonkeyPatch, killed: str
    ) -> None:
        job = await service.succeeded("emoji")
        remove = AsyncArtifactsStore.remove

        async def cut_off(self: AsyncArtifactsStore, path: str) -> None:
            if killed == "after the files":
                await remove(self, path)
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(AsyncArtifactsStore, "remove", cut_off)
            assert (await service.http.delete(f"/v1/jobs/{job['id']}")).status_code == 204

        assert (await service.http.get(f"/v1/jobs/{job['id']}")).status_code == 404
        assert (await service.http.get("/v1/jobs")).json()["items"] == []
        assert (await rows(service))[0] == 1
        await clean(service)
        assert await rows(service) == [0, 0, 0, 0, 0]
        assert not (service.artifacts / "jobs" / job["id"]).exists()

    async def test_its_files_stay_while_a_lost_attempt_may_still_write(self, start: Start) -> None:
        service = await start(stop_grace_seconds=0)
        worker = await lost(service)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.RUNNING

        await service.http.delete(f"/v1/jobs/{worker.job}")
        await clean(service)
        assert (service.artifacts / "jobs" / worker.job).exists()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.STOPPED
        await clean(service)

        assert not (service.artifacts / "jobs" / worker.job).exists()


class TestEndedAttempts:
    async def test_the_last_attempt_of_a_job_is_fenced_and_stopped_if_it_is_lost(self, start: Start) -> None:
        service = await start(stop_grace_seconds=0)
        worker = await lost(service)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.RUNNING  # Ray remembers: it runs on

        await clean(service)

        assert worker.control() == {"fence": 2, "desired": "cancel"}
        assert service.ray.stopped == [f"tc-{worker.job}-a1"]

    async def test_an_earlier_one_is_fenced_again_after_a_stale_server_has_restored_its_fence(self, service: Service) -> None:
        worker = await service.running()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick(2)
        second = Worker(service.artifacts, await service.job(worker.job))
        second.start()
        second.succeed()
        await service.tick()
        (service.artifacts / "jobs" / worker.job / "control.json").write_text('{"fence":1,"desired":"run"}')

        await clean(service)

        assert worker.control() == {"fence": 3, "desired": "cancel"}

    @pytest.mark.parametrize("stuck", ["Ray reports that it runs", "its control file cannot be written"])
    async def test_one_that_stays_does_not_hold_up_the_others(
        self, start: Start, monkeypatch: pytest.MonkeyPatch, stuck: str
    ) -> None:
        monkeypatch.setattr(cleanup, "BATCH_SIZE", 1)
        service = await start(stop_grace_seconds=0, max_running_jobs=3)
        workers = sorted([await lost(service) for _ in range(3)], key=lambda worker: worker.job)
        for worker in workers:
            service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        if stuck == "Ray reports that it runs":
            service.ray.jobs[f"tc-{workers[0].job}-a1"] = RayJobStatus.RUNNING
        else:
            control = service.artifacts / "jobs" / workers[0].job / "control.json"
            control.unlink()
            control.mkdir()

        await clean(service)

        async with service.app.state.services.db.read() as session:
            unreleased = await session.scalars(select(AttemptRow.job_id).where(AttemptRow.released_at.is_(None)))
            assert unreleased.all() == [workers[0].job]

    async def test_one_that_reported_its_outcome_may_exit_on_its_own(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()
        await service.tick()

        await clean(service)

        assert service.ray.stopped == []
        assert worker.control() == {"fence": 1, "desired": "run"}

    async def test_a_released_one_is_not_asked_about_again(self, service: Service) -> None:
        worker = await service.running()
        worker.succeed()
        await service.tick()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.SUCCEEDED
        await clean(service)
        requested: list[str] = []
        service.ray.job_status = noted(requested)  # type: ignore[method-assign]

        await clean(service)

        assert requested == []


def noted(requested: list[str]) -> Callable[[str], Awaitable[RayJobStatus]]:
    async def job_status(submission_id: str) -> RayJobStatus:
        requested.append(submission_id)
        return RayJobStatus.SUCCEEDED

    return job_status


async def lost(service: Service) -> Worker:
    """Return a job whose only attempt ended without a final event."""
    worker = await service.running(max_attempts=1)
    service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
    await service.tick()
    assert (await service.job(worker.job))["error"]["code"] == "attempt_lost"
    assert json.loads((service.artifacts / "jobs" / worker.job / "control.json").read_text())["fence"] == 1
    return worker

"""Jobs that wait for the cluster's resources show what they wait for."""

from typing import Any

import pytest
from tinyclip_server.backends.ray_gateway import RayJobNote, RayJobStatus
from tinyclip_server.orchestration.followers import follower
from tinyclip_server.orchestration.scheduling import scheduler

from tests.server.events import Worker, progress
from tests.server.service import Service

WAITING = "waiting for 2 CPUs, 0 free"
REPORT: dict[str, Any] = {
    "type": "worker_group.waiting", "stage": 0, "message": WAITING,
    "data": {"needed": {"CPU": 2}, "free": {"CPU": 0}, "total": {"CPU": 2}},
}  # fmt: skip


async def waiting(service: Service, job: str) -> str | None:
    found: str | None = (await service.job(job))["progress"]["waiting"]
    return found


class TestWorkerGroup:
    async def report(self, service: Service) -> Worker:
        worker = await service.running()
        worker.emit(REPORT)
        await service.tick()
        return worker

    async def test_the_job_and_its_history_show_what_is_missing(self, service: Service) -> None:
        worker = await self.report(service)

        assert await waiting(service, worker.job) == WAITING
        event = (await service.events(worker.job))[-1]
        assert (event["type"], event["message"], event["data"]) == ("worker_group.waiting", WAITING, REPORT["data"])

    @pytest.mark.parametrize(
        "event", [{"type": "worker_group.placed", "stage": 0}, progress(1)], ids=["placed", "progress"]
    )
    async def test_the_next_sign_of_its_workers_ends_the_wait(self, service: Service, event: dict[str, Any]) -> None:
        worker = await self.report(service)

        worker.emit(event)
        await service.tick()

        assert await waiting(service, worker.job) is None

    async def test_another_attempt_does_not_show_the_wait_of_the_one_before(self, service: Service) -> None:
        worker = await self.report(service)

        worker.emit({"type": "attempt.failed", "message": "gloo", "data": {"code": "attempt_failed", "retryable": True}})
        await service.tick()

        assert (await service.job(worker.job))["state"] == "starting"
        assert await waiting(service, worker.job) is None


NOTE = "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available."
GIVEN_UP = RayJobNote("Job supervisor actor failed to start within 900.0 seconds.", never_started=True)
NO_AGENT = "500 RuntimeError: Timed out waiting for an available job agent"


class TestSubmission:
    """A job that Ray does not take, although its API answers, or because it does not."""

    async def refused(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
        """Submit a job that Ray does not take; return its id."""
        monkeypatch.setattr(scheduler, "PENDING_SECONDS", 0.0)
        service.ray.submission_error = NO_AGENT
        job: str = (await service.submit())["id"]
        await service.tick(5)
        return job

    async def test_the_answer_is_shown_and_recorded_once_in_a_while(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await self.refused(service, monkeypatch)

        assert await waiting(service, job) == f"waiting for Ray to take the job: {NO_AGENT}"
        events = [event for event in await service.events(job) if event["type"] == "attempt.pending"]
        assert [(event["attempt"], event["message"]) for event in events] == [(1, await waiting(service, job))]

    async def test_it_is_recorded_again_after_a_while(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scheduler, "PENDING_REPEAT_SECONDS", 0.0)

        job = await self.refused(service, monkeypatch)

        assert [event["type"] for event in await service.events(job)].count("attempt.pending") > 1

    async def test_a_cluster_that_does_not_answer_is_shown_too(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        service.ray.unavailable = True

        job = await self.refused(service, monkeypatch)

        assert await waiting(service, job) == "waiting for Ray to take the job: no answer"

    async def test_the_submission_ends_the_wait(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        job = await self.refused(service, monkeypatch)
        monkeypatch.setattr(scheduler, "PENDING_SECONDS", 60.0)
        service.ray.notes[f"tc-{job}-a1"] = RayJobNote(NOTE)

        service.ray.submission_error = None
        await service.tick(3)

        assert (await service.job(job))["state"] == "starting"
        assert (await service.events(job))[-1]["type"] == "attempt.submitted"
        assert await waiting(service, job) is None

    async def test_an_error_that_soon_passes_is_not_reported(self, service: Service) -> None:
        service.ray.submission_error = NO_AGENT
        job = await service.submit()

        await service.tick(5)

        assert "attempt.pending" not in [event["type"] for event in await service.events(job["id"])]
        assert await waiting(service, job["id"]) is None


class TestDriver:
    async def pending(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
        """Submit a job whose driver Ray keeps pending; return its id."""
        monkeypatch.setattr(scheduler, "PENDING_SECONDS", 0.0)
        job: str = (await service.submit())["id"]
        service.ray.notes[f"tc-{job}-a1"] = RayJobNote(NOTE)
        await service.tick(5)
        return job

    async def test_what_ray_reports_is_shown_and_recorded_once_in_a_while(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await self.pending(service, monkeypatch)

        assert await waiting(service, job) == f"waiting for Ray to start the driver: {NOTE}"
        events = [event for event in await service.events(job) if event["type"] == "attempt.pending"]
        assert [(event["attempt"], event["message"]) for event in events] == [(1, await waiting(service, job))]

    async def test_it_is_reported_again_after_a_while(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scheduler, "PENDING_REPEAT_SECONDS", 0.0)

        job = await self.pending(service, monkeypatch)

        assert [event["type"] for event in await service.events(job)].count("attempt.pending") > 1

    async def test_a_driver_that_starts_ends_the_wait(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        job = await self.pending(service, monkeypatch)

        service.ray.jobs[f"tc-{job}-a1"] = RayJobStatus.RUNNING
        Worker(service.artifacts, await service.job(job)).start()
        await service.tick()

        assert (await service.job(job))["state"] == "running"
        assert await waiting(service, job) is None

    async def test_a_start_of_a_few_seconds_is_not_reported(self, service: Service) -> None:
        job = await service.submit()
        service.ray.notes[f"tc-{job['id']}-a1"] = RayJobNote(NOTE)

        await service.tick(5)

        assert "attempt.pending" not in [event["type"] for event in await service.events(job["id"])]

    async def test_one_that_ray_never_started_is_submitted_again_and_counts_as_no_failure(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await self.pending(service, monkeypatch)
        attempts = 5

        for number in range(1, attempts):
            service.ray.jobs[f"tc-{job}-a{number}"] = RayJobStatus.FAILED
            service.ray.notes[f"tc-{job}-a{number}"] = GIVEN_UP
            await service.tick(3)

        found = await service.job(job)
        assert (found["state"], found["attempt"], found["error"]) == ("starting", attempts, None)
        queued = [event["message"] for event in await service.events(job) if event["type"] == "job.queued"]
        assert queued == [f"Ray found no room for its driver: {GIVEN_UP.message}"] * (attempts - 1)

    async def test_a_cancelled_one_that_ray_never_started_is_cancelled(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = await self.pending(service, monkeypatch)
        await service.call("POST", f"/v1/jobs/{job}/cancel", status=202)

        service.ray.jobs[f"tc-{job}-a1"], service.ray.notes[f"tc-{job}-a1"] = RayJobStatus.FAILED, GIVEN_UP
        await service.tick(2)

        assert (await service.job(job))["state"] == "cancelled"


class TestOtherJobs:
    async def pending(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
        """Create an evaluation whose driver Ray keeps pending; return it and its submission's id."""
        monkeypatch.setattr(follower, "PENDING_SECONDS", 0.0)
        await service.register_model("emoji")
        task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
        evaluation = await service.call("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [task]}, status=201)
        await service.reconcile("evaluations")
        [submission] = service.ray.submissions
        service.ray.notes[submission] = RayJobNote(NOTE)
        await service.reconcile("evaluations")
        return evaluation, submission

    async def test_an_evaluation_that_ray_keeps_pending_shows_that_until_it_starts(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluation, submission = await self.pending(service, monkeypatch)
        shown = await service.get(f"/v1/evaluations/{evaluation['id']}")

        service.ray.jobs[submission] = RayJobStatus.RUNNING
        await service.reconcile("evaluations")
        started = await service.get(f"/v1/evaluations/{evaluation['id']}")

        assert (shown["state"], shown["message"]) == ("queued", f"waiting for Ray to start the job: {NOTE}")
        assert started["message"] == ""

    async def test_an_evaluation_that_ray_does_not_take_shows_that_until_it_is_submitted(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await service.register_model("emoji")
        task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
        evaluation = await service.call("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [task]}, status=201)
        messages = []
        for seconds, error in ((10.0, NO_AGENT), (0.0, NO_AGENT), (10.0, "no answer"), (10.0, None)):
            monkeypatch.setattr(follower, "PENDING_SECONDS", seconds)
            service.ray.submission_error = error
            await service.reconcile("evaluations")
            messages.append((await service.get(f"/v1/evaluations/{evaluation['id']}"))["message"])

        shown = "waiting for Ray to take the job"
        assert messages == ["", f"{shown}: {NO_AGENT}", f"{shown}: no answer", ""]

    async def test_one_that_ray_never_started_is_submitted_again_and_counts_as_no_failure(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluation, submission = await self.pending(service, monkeypatch)
        times = 5

        for _ in range(times):
            service.ray.jobs[submission], service.ray.notes[submission] = RayJobStatus.FAILED, GIVEN_UP
            await service.reconcile("evaluations")
            given_up = await service.get(f"/v1/evaluations/{evaluation['id']}")
            await service.reconcile("evaluations")

        assert service.ray.submissions == [submission] * (1 + times)
        assert (given_up["state"], given_up["message"]) == ("queued", f"waiting for Ray to start the job: {GIVEN_UP.message}")
        assert service.ray.jobs[submission] is RayJobStatus.PENDING

"""Ray jobs that Ray reports as running and that make no progress, and jobs whose time is up."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, EvaluationRow
from tinyclip_server.jobs.lifecycle import AttemptOutcome
from tinyclip_server.orchestration.ray_jobs import stalls

from tests.server.documents import spec
from tests.server.events import Worker, evaluation_progress, log_line
from tests.server.service import Service, Start, on_both_databases

LIMIT = {"timeouts": {"progress_seconds": 3600}}
TASK = {"name": "val", "kind": "zero_shot", "shards": "/data/val.tar", "classes": ["a", "b"], "templates": ["{}"]}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server judge a job at its first reading of the events."""
    monkeypatch.setattr(stalls, "SETTLE_SECONDS", 0.0)


async def silent(service: Service, worker: Worker, seconds: float, status: RayJobStatus = RayJobStatus.RUNNING) -> None:
    """Let the worker have written nothing for some time, while Ray reports a status."""
    service.ray.jobs[f"tc-{worker.job}-a{worker.attempt}"] = status
    await _age(service, AttemptRow, seconds)


async def _age(service: Service, table: Any, seconds: float) -> None:
    async with service.app.state.services.db.write() as session:
        await session.execute(update(table).values(progressed_at=now() - timedelta(seconds=seconds)))


async def _causes(service: Service, job: str) -> list[tuple[str | None, str]]:
    return [(attempt["outcome"], attempt["cause"]) for attempt in await service.items(f"/v1/jobs/{job}/attempts")]


class TestStalledAttempt:
    @on_both_databases
    async def test_the_next_attempt_follows(self, service: Service) -> None:
        worker = await service.running(**LIMIT)
        worker.step(4, loss=1.0)
        await service.tick()
        await silent(service, worker, 3601)

        await service.tick(2)

        job = await service.job(worker.job)
        assert (job["state"], job["attempt"], job["progress"]["step"]) == ("starting", 2, 4)
        assert service.ray.submissions == [f"tc-{worker.job}-a1", f"tc-{worker.job}-a2"]
        assert worker.control() == {"fence": 2, "desired": "run"}
        stalled = [event["message"] for event in await service.events(worker.job) if event["type"] == "attempt.stalled"]
        assert stalled == ["attempt 1 is stopped: no progress for 3600 s"]
        assert await _causes(service, worker.job) == [("stalled", stalled[0]), (None, "")]

    async def test_its_processes_are_stopped(self, start: Start) -> None:
        service = await start(stop_grace_seconds=0)
        worker = await service.running(**LIMIT)
        await silent(service, worker, 3601)
        await service.tick()

        await service.reconcile("cleanup")

        assert service.ray.stopped == [f"tc-{worker.job}-a1"]

    async def test_after_max_attempts_the_job_fails(self, service: Service) -> None:
        worker = await service.running(max_attempts=1, **LIMIT)
        await silent(service, worker, 3601)

        await service.tick()

        job = await service.job(worker.job)
        assert (job["state"], job["error"]["code"], job["error"]["retryable"]) == ("failed", "attempt_stalled", True)

    async def test_one_that_is_stopping_is_not_tried_again(self, service: Service) -> None:
        worker = await service.running(**LIMIT)
        await service.http.post(f"/v1/jobs/{worker.job}/cancel")
        await silent(service, worker, 3601)

        await service.tick()

        assert (await service.job(worker.job))["state"] == "cancelled"

    @pytest.mark.parametrize("seconds", [0, 3500])
    async def test_before_the_limit_it_runs_on(self, service: Service, seconds: int) -> None:
        worker = await service.running(**LIMIT)
        await silent(service, worker, seconds)

        await service.tick(2)

        assert (await service.job(worker.job))["attempt"] == 1

    async def test_any_event_is_a_sign_of_progress(self, service: Service) -> None:
        worker = await service.running(**LIMIT)
        await silent(service, worker, 3601)
        worker.emit(log_line("reading shards"))

        await service.tick(3)

        assert (await service.job(worker.job))["attempt"] == 1

    async def test_waiting_in_rays_queue_is_no_stall(self, service: Service) -> None:
        worker = await service.started(**LIMIT)
        await silent(service, worker, 3601, RayJobStatus.PENDING)
        await service.tick()
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.RUNNING

        await service.tick(2)

        assert (await service.job(worker.job))["attempt"] == 1

    async def test_the_default_is_two_hours(self, service: Service) -> None:
        worker = await service.running()
        await silent(service, worker, 7100)
        await service.tick()
        before = (await service.job(worker.job))["attempt"]
        await silent(service, worker, 7201)

        await service.tick()

        assert (before, (await service.job(worker.job))["attempt"]) == (1, 2)


class TestOutages:
    """The time of an outage counts only once the events of that time were read."""

    @pytest.fixture
    def clock(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        at = [1000.0]
        service.app.state.services.readings.clock = lambda: at[0]
        monkeypatch.setattr(stalls, "SETTLE_SECONDS", 120.0)
        return at

    @pytest.fixture
    async def worker(self, service: Service, clock: list[float]) -> Worker:
        worker = await service.running(**LIMIT)
        await silent(service, worker, 3601)
        return worker

    async def test_a_restarted_server_reads_for_two_minutes_first(
        self, service: Service, worker: Worker, clock: list[float]
    ) -> None:
        attempts = []
        for seconds in (0, 50, 50, 50):
            clock[0] += seconds
            await service.tick()
            attempts.append((await service.job(worker.job))["attempt"])

        assert attempts == [1, 1, 1, 2]

    async def test_an_outage_of_ray_begins_the_two_minutes_anew(
        self, service: Service, worker: Worker, clock: list[float]
    ) -> None:
        await service.tick()
        clock[0] += 119
        service.ray.unavailable = True
        await service.tick()
        clock[0] += 10
        service.ray.unavailable = False
        await service.tick()

        assert (await service.job(worker.job))["attempt"] == 1


class TestTimeLimit:
    @on_both_databases
    async def test_the_time_of_all_attempts_is_added_up(self, service: Service) -> None:
        worker = await service.running(timeouts={"total_seconds": 100})
        await _spend(service, 60)
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await service.tick()
        before = await service.job(worker.job)
        await _spend(service, 60)

        await service.tick()

        job = await service.job(worker.job)
        assert (before["state"], before["attempt"]) == ("starting", 2)
        assert (job["state"], job["error"]["code"], job["error"]["retryable"]) == ("failed", "time_limit", False)
        assert "100 s" in job["error"]["message"]
        assert (await _causes(service, worker.job))[1] == ("timed_out", job["error"]["message"])

    async def test_its_processes_are_fenced_and_stopped(self, start: Start) -> None:
        service = await start(stop_grace_seconds=0)
        worker = await service.running(timeouts={"total_seconds": 100})
        service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.RUNNING
        await _spend(service, 101)
        await service.tick()

        await service.reconcile("cleanup")

        assert worker.control() == {"fence": 2, "desired": "cancel"}
        assert service.ray.stopped == [f"tc-{worker.job}-a1"]

    async def test_a_success_that_was_not_read_yet_counts(self, service: Service) -> None:
        worker = await service.running(timeouts={"total_seconds": 100})
        await _spend(service, 101)
        worker.succeed()

        await service.tick()

        assert (await service.job(worker.job))["state"] == "succeeded"

    async def test_an_attempt_that_is_not_submitted_yet_is_not_submitted_any_more(self, service: Service) -> None:
        service.ray.unavailable = True
        job = await service.submit(timeouts={"total_seconds": 100})
        await service.tick()
        await _spend(service, 101)
        service.ray.unavailable = False

        await service.tick()

        assert (await service.job(job["id"]))["error"]["code"] == "time_limit"
        assert service.ray.submissions == []

    @pytest.mark.parametrize(
        "timeouts", [{"progress_seconds": 0}, {"total_seconds": -1}, {"progress_seconds": None}, {"minutes": 3}],
        ids=["zero", "negative", "null", "unknown"],
    )
    async def test_impossible_limits_are_refused(self, service: Service, timeouts: dict[str, Any]) -> None:
        problem = await service.call("POST", "/v1/jobs", spec(timeouts=timeouts), status=422)

        assert problem["errors"][0]["pointer"].startswith(f"/timeouts/{next(iter(timeouts))}")


async def _spend(service: Service, seconds: float) -> None:
    """Let the running attempt have begun earlier."""
    async with service.app.state.services.db.write() as session:
        begun = update(AttemptRow).where(AttemptRow.outcome.is_(None))
        await session.execute(begun.values(created_at=now() - timedelta(seconds=seconds)))
        ended = update(AttemptRow).where(AttemptRow.outcome.is_not(None))
        await session.execute(ended.values(created_at=now() - timedelta(seconds=60), finished_at=now()))


class TestFollowedJobs:
    """An evaluation stands for exports and indexes: one component follows all three."""

    @pytest.fixture
    async def id(self, service: Service) -> str:
        await service.register_model("emoji")
        created = await service.call("POST", "/v1/evaluations", {"model": "emoji@1", "tasks": [TASK]}, status=201)
        await service.reconcile("evaluations")
        service.emit(evaluation_progress(0.5))
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.RUNNING
        await service.reconcile("evaluations")
        return created["id"]

    async def test_a_stalled_one_is_stopped_and_tried_again(self, service: Service, id: str) -> None:
        await _age(service, EvaluationRow, 7201)

        await service.reconcile("evaluations", 2)

        assert service.ray.stopped == [f"tc-evaluation-{id}-a1"]
        assert service.ray.submissions == [f"tc-evaluation-{id}-a1", f"tc-evaluation-{id}-a2"]

    async def test_one_that_stalls_again_and_again_fails(self, service: Service, id: str) -> None:
        for _ in range(3):
            service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.RUNNING
            await _age(service, EvaluationRow, 7201)
            await service.reconcile("evaluations", 2)

        evaluation = await service.get(f"/v1/evaluations/{id}")
        assert (evaluation["state"], "no progress for 7200 s" in evaluation["message"]) == ("failed", True)

    async def test_before_the_limit_it_runs_on(self, service: Service, id: str) -> None:
        await _age(service, EvaluationRow, 7000)

        await service.reconcile("evaluations", 2)

        assert service.ray.stopped == []


@pytest.mark.parametrize("outcome", [AttemptOutcome.STALLED, AttemptOutcome.TIMED_OUT])
def test_processes_of_such_an_attempt_may_still_run(outcome: AttemptOutcome) -> None:
    assert not outcome.self_reported

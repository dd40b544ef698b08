"""What is removed some days after a job's end and what stays; after a kill the next round removes the rest."""

import os
import shlex
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from tinyclip.artifacts.paths import dataset_folder
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.jobs import cleanup
from tinyclip_server.orchestration import retention
from tinyclip_server.orchestration.followers import evaluations as evaluations_reconcile

from tests.server.datasets.pairs import NAME, put, register, write_files
from tests.server.documents import dataset_document
from tests.server.events import Worker, evaluation_failed
from tests.server.service import Service, Start, on_both_databases

FOREVER = float("inf")
KEEP_ALL = dict.fromkeys(["checkpoints", "logs", "events", "ray_jobs", "orphans"], FOREVER)
OLD_DAYS = 10
BOTH = pytest.mark.parametrize("days", [OLD_DAYS - 1, OLD_DAYS + 1])


async def service_that_keeps(start: Start, **days: float) -> Service:
    return await start(**{f"keep_{what}_days": count for what, count in {**KEEP_ALL, **days}.items()})


async def sweep(service: Service) -> None:
    await retention.reconcile(service.app.state.services)


async def ended(service: Service, *, well: bool = False, name: str = "emoji") -> Worker:
    """Return a job that ended OLD_DAYS ago, with a checkpoint, a drawing, a log line, and Ray's record of its attempt."""
    worker = await service.running(name=name, max_attempts=1)
    worker.emit({"type": "log", "message": "hello", "data": {"level": "info", "source": "driver"}})
    stage = service.artifacts / "jobs" / worker.job / "stages" / "0-half"
    (stage / "a1" / "step-00000005").mkdir(parents=True)
    (stage / "a1" / "step-00000005" / "manifest.json").write_text("{}")
    (stage / "layout.svg").write_text("<svg/>")
    (service.artifacts / "jobs" / worker.job / "attempts" / "1" / "driver.json").write_text("{}")
    if well:
        worker.succeed()
    else:
        worker.emit({"type": "attempt.failed", "message": "no", "data": {"code": "bad", "retryable": False}})
    await service.tick()
    service.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.SUCCEEDED
    await cleanup.reconcile(service.app.state.services)
    await _let_pass(service, worker.job)
    return worker


async def _let_pass(service: Service, job: str) -> None:
    then = now() - timedelta(days=OLD_DAYS)
    async with service.app.state.services.db.write() as session:
        await session.execute(update(JobRow).where(JobRow.id == job).values(finished_at=then))
        await session.execute(update(AttemptRow).where(AttemptRow.job_id == job).values(released_at=then))


def stage_of(service: Service, worker: Worker) -> Path:
    return service.artifacts / "jobs" / worker.job / "stages" / "0-half"


class TestCheckpoints:
    @on_both_databases
    async def test_they_are_removed_and_the_drawing_and_the_rest_stay(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=OLD_DAYS - 1)
        worker = await ended(service)
        events = await service.events(worker.job)

        await sweep(service)

        assert os.listdir(stage_of(service, worker)) == ["layout.svg"]
        assert (await service.http.get(f"/v1/jobs/{worker.job}/checkpoints")).json()["items"] == []
        assert await service.events(worker.job) == events
        assert worker.folder.exists()

    async def test_they_stay_until_then(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=OLD_DAYS + 1)
        worker = await ended(service)

        await sweep(service)

        assert len((await service.http.get(f"/v1/jobs/{worker.job}/checkpoints")).json()["items"]) == 1
        assert (await service.http.post(f"/v1/jobs/{worker.job}/retry")).status_code == 202

    async def test_a_retry_without_them_is_refused_with_a_remedy(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=OLD_DAYS - 1)
        worker = await ended(service)
        await sweep(service)

        answer = await service.http.post(f"/v1/jobs/{worker.job}/retry")

        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoints_expired")
        assert "clone" in answer.json()["detail"]

    async def test_those_that_an_active_retry_continues_from_stay_until_it_ends(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=OLD_DAYS - 1)
        worker = await ended(service)
        heir = (await service.http.post(f"/v1/jobs/{worker.job}/retry")).json()

        await sweep(service)
        assert (stage_of(service, worker) / "a1").exists()
        await service.http.post(f"/v1/jobs/{heir['id']}/cancel")
        await sweep(service)

        assert not (stage_of(service, worker) / "a1").exists()

    async def test_after_a_kill_they_are_expired_and_the_next_round_removes_them(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = await service_that_keeps(start, checkpoints=OLD_DAYS - 1)
        worker = await ended(service)

        async def killed(self: AsyncArtifactsStore, path: str) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(AsyncArtifactsStore, "remove", killed)
            with pytest.raises(KeyboardInterrupt):
                await sweep(service)
        assert (stage_of(service, worker) / "a1").exists()
        assert (await service.http.post(f"/v1/jobs/{worker.job}/retry")).status_code == 409
        await sweep(service)

        assert not (stage_of(service, worker) / "a1").exists()

    async def test_nothing_is_removed_while_an_attempt_may_still_write(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=0, logs=0, events=0, ray_jobs=0)
        worker = await ended(service)
        async with service.app.state.services.db.write() as session:
            await session.execute(update(AttemptRow).values(released_at=None))

        await sweep(service)

        assert (stage_of(service, worker) / "a1").exists()
        assert worker.folder.exists()
        assert await service.events(worker.job) != []
        assert f"tc-{worker.job}-a1" in service.ray.jobs

    async def test_those_of_a_running_job_never_expire(self, start: Start) -> None:
        service = await service_that_keeps(start, checkpoints=0, logs=0, events=0, ray_jobs=0, orphans=0)
        worker = await service.running()

        await sweep(service)

        assert worker.folder.exists()
        assert await service.events(worker.job) != []


class TestLogsAndEvents:
    @on_both_databases
    async def test_lines_are_removed_with_their_segments(self, start: Start) -> None:
        service = await service_that_keeps(start, logs=OLD_DAYS - 1)
        worker = await ended(service, well=True)
        logs = f"/v1/jobs/{worker.job}/logs"
        assert len((await service.http.get(logs)).json()["items"]) == 1
        events = await service.events(worker.job)

        await sweep(service)

        assert (await service.http.get(logs)).json()["items"] == []
        assert sorted(os.listdir(worker.folder.parent)) == ["driver.json"]
        assert await service.events(worker.job) == events
        assert (await service.job(worker.job))["state"] == "succeeded"

    @BOTH
    async def test_the_history_is_removed_if_so_configured(self, start: Start, days: float) -> None:
        service = await service_that_keeps(start, events=days)
        worker = await ended(service)

        await sweep(service)

        assert bool(await service.events(worker.job)) == (days > OLD_DAYS)


class TestRay:
    @BOTH
    async def test_its_record_of_an_attempt_is_deleted(self, start: Start, days: float) -> None:
        service = await service_that_keeps(start, ray_jobs=days)
        worker = await ended(service)

        await sweep(service)

        assert (f"tc-{worker.job}-a1" in service.ray.jobs) == (days > OLD_DAYS)

    async def test_while_ray_is_unavailable_it_is_left_to_a_later_round(self, start: Start) -> None:
        service = await service_that_keeps(start, ray_jobs=OLD_DAYS - 1)
        worker = await ended(service)
        service.ray.unavailable = True
        await sweep(service)
        service.ray.unavailable = False

        await sweep(service)

        assert f"tc-{worker.job}-a1" not in service.ray.jobs


class TestOrphans:
    async def test_an_old_folder_of_no_job_is_removed(self, start: Start) -> None:
        service = await service_that_keeps(start, orphans=OLD_DAYS - 1)
        job = await service.running()
        old, young, other = (service.artifacts / "jobs" / name for name in ("job_" + "a" * 16, "job_" + "b" * 16, "notes"))
        long_ago = time.time() - OLD_DAYS * 86400
        for folder in (old, young, other):
            (folder / "attempts").mkdir(parents=True)
            (folder / "spec.json").write_text("{}")
            if folder != young:
                os.utime(folder / "spec.json", (long_ago, long_ago))

        await sweep(service)

        assert sorted(os.listdir(service.artifacts / "jobs")) == sorted([young.name, other.name, job.job])

    async def test_an_old_folder_of_no_version_of_a_data_set_is_removed(self, start: Start) -> None:
        service = await service_that_keeps(start, orphans=OLD_DAYS - 1)
        await register(service)
        await put(service)
        for number in (1, 2, 3, 4):
            write_files(service, dataset_document(NAME, number))
        long_ago = time.time() - OLD_DAYS * 86400
        for path in (service.artifacts / dataset_folder(NAME)).rglob("*.*"):
            if "/4/" not in str(path):
                os.utime(path, (long_ago, long_ago))

        await sweep(service)

        assert sorted(os.listdir(service.artifacts / dataset_folder(NAME))) == ["1", "2", "4", "jobs", "request.json"]


@pytest.mark.parametrize("days", ["inf", "30", "0.5"])
async def test_formats_of_days(start: Start, monkeypatch: pytest.MonkeyPatch, days: str) -> None:
    monkeypatch.setenv("TINYCLIP_KEEP_LOGS_DAYS", days)

    service = await start()

    assert service.settings.keep_logs_days == float(days)


class TestOtherRecordsOfRay:
    """Records of data sets, evaluations, exports and indexes, whose rows know the newest job only."""

    def record(self, service: Service, id: str, *, days: float = OLD_DAYS, store: str | None = None) -> None:
        root = store or str(service.artifacts)
        service.ray.jobs[id] = RayJobStatus.FAILED
        service.ray.entrypoints[id] = f"exec python -m tinyclip_workers.x --artifacts {shlex.quote(root)} --x 1"
        service.ray.ended_at[id] = now() - timedelta(days=days)

    async def evaluation(self, service: Service) -> str:
        """Ray's record of an evaluation whose job has ended, with its events not read yet."""
        body = {"model": "ViT-B-32/openai", "tasks": [{"name": "t", "kind": "zero_shot", "shards": "s3://b/t.tar"}]}
        id = (await service.http.post("/v1/evaluations", json=body)).json()["id"]
        await evaluations_reconcile.reconcile(service.app.state.services)
        self.record(service, f"tc-evaluation-{id}-a1")
        return str(id)

    @on_both_databases
    @BOTH
    async def test_those_of_jobs_that_ended_long_ago_are_deleted(self, start: Start, days: float) -> None:
        service = await service_that_keeps(start, ray_jobs=days)
        ids = [
            "tc-dataset-emoji-v1-a1", "tc-evaluation-eval_a-a1", "tc-export-export_a-a3", "tc-index-gallery-b1764-u3",
            "tc-reinforcement-reinf_a-a1", "tc-job_deleted-a1",
        ]
        for id in ids:
            self.record(service, id)

        await sweep(service)

        assert list(service.ray.jobs) == ([] if days < OLD_DAYS else ids)

    async def test_one_that_a_row_still_needs_stays_until_it_does_not(self, start: Start) -> None:
        service = await service_that_keeps(start, ray_jobs=OLD_DAYS - 1)
        id = await self.evaluation(service)

        await sweep(service)
        assert list(service.ray.jobs) == [f"tc-evaluation-{id}-a1"]
        service.emit(evaluation_failed("bad", "no"), submission=f"tc-evaluation-{id}-a1")
        await evaluations_reconcile.reconcile(service.app.state.services)
        await sweep(service)

        assert (await service.http.get(f"/v1/evaluations/{id}")).json()["state"] == "failed"
        assert service.ray.jobs == {}

    async def test_an_attempt_that_is_not_released_keeps_its_record(self, start: Start) -> None:
        service = await service_that_keeps(start, ray_jobs=0)
        worker = await ended(service)
        self.record(service, f"tc-{worker.job}-a1")
        async with service.app.state.services.db.write() as session:
            await session.execute(update(AttemptRow).values(released_at=None))

        await sweep(service)

        assert f"tc-{worker.job}-a1" in service.ray.jobs

    async def test_jobs_of_other_services_on_the_same_cluster_stay(self, start: Start) -> None:
        service = await service_that_keeps(start, ray_jobs=0)
        self.record(service, "tc-evaluation-eval_b-a1", store=f"{service.artifacts}-of-another")
        self.record(service, "somebody-s")

        await sweep(service)

        assert list(service.ray.jobs) == ["tc-evaluation-eval_b-a1", "somebody-s"]

    async def test_while_ray_is_unavailable_the_rest_is_removed(self, start: Start) -> None:
        service = await service_that_keeps(start, ray_jobs=0, checkpoints=0)
        worker = await ended(service)
        self.record(service, "tc-export-export_a-a1")
        service.ray.unavailable = True
        await sweep(service)
        service.ray.unavailable = False

        assert not (stage_of(service, worker) / "a1").exists()
        assert "tc-export-export_a-a1" in service.ray.jobs

"""Jobs that wait for the cluster's resources show what they wait for."""

from typing import Any

import pytest

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

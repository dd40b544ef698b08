"""Servers with different Ray clusters on one database: each touches only the Ray jobs of its own cluster."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.jobs import lifecycle

from tests.server.fakes import ScriptedRay
from tests.server.service import Service, Start, on_both_databases

ELSEWHERE = "http://another-cluster"


@pytest.fixture
async def first(start: Start) -> Service:
    return await start()


@pytest.fixture
async def second(start: Start, first: Service) -> Service:
    """A server of another cluster."""
    return await start(ScriptedRay(), ray_address=ELSEWHERE, unknown_grace_seconds=0)


@on_both_databases
class TestSettling:
    async def test_jobs_of_another_cluster_are_left_alone(self, first: Service, second: Service) -> None:
        worker = await first.running()

        await second.app.state.scheduler.interrupt_all()
        await first.lose_leases()
        await second.app.state.scheduler.interrupt_all()
        worker.step(3, loss=1.0)
        await first.tick()

        job = await first.job(worker.job)
        assert (job["state"], job["attempt"], job["progress"]["step"]) == ("running", 1, 3)
        assert "attempt.interrupted" not in [event["type"] for event in await first.events(worker.job)]

    async def test_jobs_of_the_own_cluster_are_settled_although_a_killed_server_leases_them(
        self, start: Start, first: Service
    ) -> None:
        worker = await first.running()
        restarted = await start(first.ray)

        await restarted.app.state.scheduler.interrupt_all()

        assert (await first.job(worker.job))["state"] == "queued"

    async def test_an_attempt_that_no_server_has_claimed_is_settled_too(self, first: Service, second: Service) -> None:
        worker = await first.running()
        first.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await first.tick()
        await first.lose_leases()

        await second.app.state.scheduler.interrupt_all()

        assert (await first.job(worker.job))["state"] == "queued"


class TestSoleServer:
    async def test_jobs_of_every_cluster_are_settled_as_after_a_restored_backup(self, first: Service, second: Service) -> None:
        worker = await first.running(max_attempts=1)
        worker.step(4, loss=1.0)

        await second.app.state.scheduler.interrupt_all(every_cluster=True)
        queued = await second.job(worker.job)
        await second.tick(2)

        job = await second.job(worker.job)
        assert (queued["state"], queued["progress"]["step"], job["state"], job["attempt"]) == ("queued", 4, "starting", 2)
        assert worker.control() == {"fence": 2, "desired": "run"}


class TestClaims:
    async def test_an_expired_lease_is_not_taken_by_another_cluster(self, first: Service, second: Service) -> None:
        worker = await first.running()
        await first.lose_leases()

        await second.tick(3)

        job = await second.job(worker.job)
        assert (job["state"], job["attempt"]) == ("running", 1)
        assert second.ray.submissions == []

    async def test_an_orderly_stop_does_not_hand_it_to_another_cluster(self, first: Service, second: Service) -> None:
        worker = await first.running()
        await first.app.state.scheduler.release()

        await second.tick(3)

        assert (await second.job(worker.job))["attempt"] == 1

    async def test_an_attempt_whose_cluster_has_no_server_any_more_is_replaced(self, first: Service, second: Service) -> None:
        worker = await first.running()
        worker.step(4, loss=1.0)
        async with first.app.state.services.db.write() as session:
            long_ago = now() - timedelta(seconds=lifecycle.ABANDONED_SECONDS + 1)
            await session.execute(update(JobRow).values(lease_until=long_ago))

        await second.tick(2)

        job = await second.job(worker.job)
        assert (job["attempt"], job["progress"]["step"]) == (2, 4)
        assert second.ray.submissions == [f"tc-{worker.job}-a2"]
        assert worker.control() == {"fence": 2, "desired": "run"}
        lost = [event["message"] for event in await second.events(worker.job) if event["type"] == "attempt.lost"]
        assert lost == ["attempt 1 is lost: no server of its cluster http://127.0.0.1:1 runs"]

    async def test_the_success_of_such_an_attempt_counts(self, first: Service, second: Service) -> None:
        worker = await first.running()
        worker.succeed()
        async with first.app.state.services.db.write() as session:
            await session.execute(update(JobRow).values(lease_until=now() - timedelta(days=1)))

        await second.tick()

        assert (await second.job(worker.job))["state"] == "succeeded"

    async def test_an_ended_attempt_is_released_by_its_own_cluster(self, first: Service, second: Service) -> None:
        worker = await first.running()
        first.ray.jobs[f"tc-{worker.job}-a1"] = RayJobStatus.FAILED
        await first.tick()

        await second.reconcile("cleanup")
        before = await _unreleased(first)
        await first.reconcile("cleanup")

        assert (before, await _unreleased(first)) == ([1, 2], [2])


async def _unreleased(service: Service) -> list[int]:
    async with service.app.state.services.db.read() as session:
        query = select(AttemptRow.number).where(AttemptRow.released_at.is_(None)).order_by(AttemptRow.number)
        return list(await session.scalars(query))

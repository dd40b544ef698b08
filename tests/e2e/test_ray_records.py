"""Ray's own records of its jobs, in the service's cluster, beside those of the service."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tinyclip_server.backends.ray_gateway import RayGateway, RayJobStatus, RayUnavailable
from tinyclip_server.database.engine import now

from tests.e2e.world import World

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]

ENDED, RUNNING = "tc-export-a-a1", "tc-export-b-a1"
"""Jobs of no service: their entrypoints name no store."""


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[RayGateway]:
    """A gateway of its own to the service's cluster."""
    gateway = RayGateway(world.service.cluster()["address"], token_path=world.service.data / "ray-token", timeout_s=60.0)
    yield gateway
    await gateway.stop_job(RUNNING)
    await gateway.close()


async def reached(gateway: RayGateway, submission_id: str, state: RayJobStatus) -> None:
    async with asyncio.timeout(200):
        while await gateway.job_status(submission_id) != state:  # noqa: ASYNC110 - Ray can only be polled
            await asyncio.sleep(0.2)


async def test_an_ended_job_is_listed_and_deleted_and_a_running_one_is_not(gateway: RayGateway) -> None:
    await gateway.submit_job(ENDED, "exec true --artifacts /a --x", {})
    await gateway.submit_job(RUNNING, "exec sleep 600", {})
    await reached(gateway, ENDED, RayJobStatus.SUCCEEDED)
    await reached(gateway, RUNNING, RayJobStatus.RUNNING)

    listed = {job.submission_id: job for job in await gateway.ended_jobs()}
    assert RUNNING not in listed
    assert listed[ENDED].entrypoint == "exec true --artifacts /a --x"
    assert timedelta(0) <= now() - listed[ENDED].ended_at < timedelta(minutes=10)

    await gateway.delete_job(ENDED)
    assert await gateway.job_status(ENDED) is None
    assert ENDED not in {job.submission_id for job in await gateway.ended_jobs()}
    await gateway.delete_job(ENDED)  # twice is once

    with pytest.raises(RayUnavailable, match=RUNNING):
        await gateway.delete_job(RUNNING)
    assert await gateway.job_status(RUNNING) == RayJobStatus.RUNNING

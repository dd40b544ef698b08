"""Ray's own records of its jobs, in a real cluster."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tinyclip_server.backends.ray_gateway import RayGateway, RayJobStatus, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.local.machine import free_port
from tinyclip_server.local.ray import LocalRay
from tinyclip_server.settings import Settings

pytestmark = pytest.mark.ray


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RayGateway]:
    """A gateway to a cluster of its own, without an engine."""
    ray = LocalRay(Settings(data_dir=tmp_path, serve_port=free_port(), ray_object_store_bytes=80 << 20))
    await ray.clear()
    try:
        await ray.start()
        gateway = RayGateway(ray.address, token_path=ray.token_path, timeout_s=60.0)
        yield gateway
        await gateway.close()
    finally:
        await ray.stop()


async def reached(gateway: RayGateway, submission_id: str, state: RayJobStatus) -> None:
    async with asyncio.timeout(200):
        while await gateway.job_status(submission_id) != state:  # noqa: ASYNC110 - Ray can only be polled
            await asyncio.sleep(0.2)


@pytest.mark.timeout(600)
async def test_an_ended_job_is_listed_and_deleted_and_a_running_one_is_not(gateway: RayGateway) -> None:
    await gateway.submit_job("tc-export-a-a1", "exec true --artifacts /a --x", {})
    await gateway.submit_job("tc-export-b-a1", "exec sleep 600", {})
    await reached(gateway, "tc-export-a-a1", RayJobStatus.SUCCEEDED)
    await reached(gateway, "tc-export-b-a1", RayJobStatus.RUNNING)

    [job] = await gateway.ended_jobs()
    assert (job.submission_id, job.entrypoint) == ("tc-export-a-a1", "exec true --artifacts /a --x")
    assert timedelta(0) <= now() - job.ended_at < timedelta(minutes=10)

    await gateway.delete_job("tc-export-a-a1")
    assert await gateway.job_status("tc-export-a-a1") is None
    assert await gateway.ended_jobs() == []
    await gateway.delete_job("tc-export-a-a1")  # twice is once

    with pytest.raises(RayUnavailable, match="tc-export-b-a1"):
        await gateway.delete_job("tc-export-b-a1")
    assert await gateway.job_status("tc-export-b-a1") == RayJobStatus.RUNNING

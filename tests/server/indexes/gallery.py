"""The index `gallery`, which the tests of indexes build and change."""

from typing import Any

from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.events import index_finished
from tests.server.service import Service

MODEL = "emoji-half"
"""Its embeddings have 32 numbers."""
SOURCE = {"shards": "s3://bucket/{0..3}.tar"}
GALLERY = "/v1/indexes/gallery"


async def put(service: Service, path: str = GALLERY, **changes: Any) -> dict[str, Any]:
    """Request a build; of the default source, unless `source` is given."""
    return await service.call("PUT", path, {"model": f"{MODEL}@1", "source": SOURCE, **changes}, status=202)


async def get(service: Service) -> dict[str, Any]:
    return await service.get(GALLERY)


async def build(service: Service, count: int = 10, **changes: Any) -> None:
    """Build the index with this many items."""
    await put(service, **changes)
    await service.reconcile("indexes")
    service.emit(index_finished(count))
    await service.reconcile("indexes")
    assert (await get(service))["state"] == "ready"


async def lose_jobs(service: Service, times: int) -> list[str]:
    """Lose the next Ray jobs of the index, and return its state after each."""
    states = []
    for _ in range(times):
        await service.reconcile("indexes")
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await service.reconcile("indexes")
        states.append((await get(service))["state"])
    return states

"""The end of an index: its job, its files and its row."""

import time
from types import SimpleNamespace

import pytest
from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.indexes import service as indexes

from tests.server.indexes.test_indexes import MODEL, SOURCE, built, get, put, round_
from tests.server.service import Service


@pytest.fixture
async def service(service: Service) -> Service:
    await service.made(MODEL)
    return service


class TestDelete:
    async def test_removes_files_and_row(self, service: Service) -> None:
        await built(service)
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.SUCCEEDED

        answer = await service.http.delete("/v1/indexes/gallery")
        await round_(service)

        assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404
        assert not (service.artifacts / "indexes/gallery").exists()

    async def test_stops_a_build_under_way_first(self, service: Service) -> None:
        await put(service)
        await round_(service)
        job = service.ray.submissions[-1]
        service.ray.jobs[job] = RayJobStatus.RUNNING

        await service.http.delete("/v1/indexes/gallery")
        await round_(service)
        while_it_stops = await get(service)
        service.ray.jobs[job] = RayJobStatus.STOPPED
        await round_(service)

        assert service.ray.stopped == [job]
        assert while_it_stops["state"] == "deleting"
        assert (await service.http.get("/v1/indexes/gallery")).status_code == 404

    async def test_a_deleted_name_used_again_is_another_job(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        await built(service)
        first = service.ray.submissions[-1]
        service.ray.jobs[first] = RayJobStatus.SUCCEEDED
        await service.http.delete("/v1/indexes/gallery")
        await round_(service)
        later = time.time() + 1  # a name cannot be built and deleted within the second in which it was made
        monkeypatch.setattr(indexes, "time", SimpleNamespace(time=lambda: later))

        await put(service)
        await round_(service)

        assert (await get(service))["state"] == "building"
        assert service.ray.submissions[-1] != first

    async def test_a_name_that_is_going_cannot_be_put(self, service: Service) -> None:
        await put(service)
        await service.http.delete("/v1/indexes/gallery")

        answer = await service.http.put("/v1/indexes/gallery", json={"model": f"{MODEL}@1", "source": SOURCE})

        assert (answer.status_code, answer.json()["code"]) == (409, "index_deleting")

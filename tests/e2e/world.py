"""One service and one job without faults for all end-to-end tests, and for those of the console."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tinyclip import Client
from tinyclip.schemas import Job

from tests.e2e.service import CommandResult, Service


@dataclass(frozen=True)
class World:
    """A folder with data, teacher and spec, and the service that works on them."""

    folder: Path
    spec_file: Path
    service: Service
    client: Client

    def newest_job(self) -> Job:
        return self.client.jobs.page(page_size=1).items[0]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from tests.e2e.shapes import write_world  # imports torch, which other tests do without

    folder = tmp_path_factory.mktemp("e2e")
    spec_file = write_world(folder)
    service = Service(folder)
    service.start()
    try:
        assert httpx.get(f"{service.url}/readyz", timeout=30).status_code == 200
        with Client(service.url) as client:
            yield World(folder, spec_file, service, client)
        status = service.stop()
        left = service.processes()
    finally:
        service.end_everything()
    assert status == 0, "stopping is not clean"
    assert not left, "something was left running"
    assert not (service.data / "ray.json").exists()


@dataclass(frozen=True)
class Undisturbed:
    """The result of a job that runs without faults."""

    ran: CommandResult
    job: Job


@pytest.fixture(scope="session")
def undisturbed(world: World) -> Undisturbed:
    ran = world.service.client("jobs", "submit", world.spec_file, "--watch")
    assert ran.code == 0, ran.out + ran.err
    return Undisturbed(ran, world.newest_job())


@pytest.fixture(scope="session")
def deployment(world: World, undisturbed: Undisturbed) -> str:
    """The undisturbed job's student, ready for queries, on the engine whose numbers do not depend on the machine."""
    assert undisturbed.job.model is not None
    model = f"{undisturbed.job.model.name}@{undisturbed.job.model.version}"
    ran = world.service.client("deployments", "create", "shapes", "--model", model, "--engine", "torch")
    assert ran.code == 0, ran.out + ran.err
    return "shapes"

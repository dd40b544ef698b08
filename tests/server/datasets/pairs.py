"""The data set `emoji`, which the tests of data sets register and change."""

import json
from typing import Any

from tinyclip.artifacts.paths import dataset_blocks, dataset_document, dataset_samples, dataset_shards, dataset_version
from tinyclip.artifacts.paths import dataset_report as report_path
from tinyclip_server.backends.ray_gateway import RayJobStatus

from tests.server.documents import dataset_report
from tests.server.events import dataset_finished
from tests.server.service import Service

NAME = "emoji"
EMOJI = f"/v1/datasets/{NAME}"
SHARDS = "s3://bucket/{0..3}.tar"


def body(**changes: Any) -> dict[str, Any]:
    """Return a `DatasetPut`; `source` is merged into the default one."""
    return {"holdout": 0.05, **changes, "source": {"shards": SHARDS, **changes.get("source", {})}}


async def put(service: Service, **changes: Any) -> dict[str, Any]:
    """Request a registration."""
    return await service.call("PUT", EMOJI, body(**changes), status=202)


async def get(service: Service) -> dict[str, Any]:
    return await service.get(EMOJI)


async def register(service: Service, **document: Any) -> dict[str, Any]:
    """Register the next version, whose document has these changes, and return the data set."""
    registering = await put(service)
    await service.reconcile("datasets")
    version = number_of(registering)
    event = dataset_finished(NAME, version, **document)
    write_files(service, event["data"])
    service.emit(event)
    await service.reconcile("datasets")
    ready = await get(service)
    assert ready["state"] == "ready"
    return ready


def write_files(service: Service, document: dict[str, Any]) -> None:
    """Write the files of a version, of which the server reads the report only."""
    folder = dataset_version(document["name"], document["version"])
    tables = [dataset_shards(folder), dataset_blocks(folder), *(dataset_samples(folder, n) for n in range(document["shards"]))]
    files = {
        **dict.fromkeys(tables, "a table"),
        report_path(folder): json.dumps(dataset_report()),
        dataset_document(document["name"], document["version"]): json.dumps(document),
    }
    for path, content in files.items():
        (service.artifacts / path).parent.mkdir(parents=True, exist_ok=True)
        (service.artifacts / path).write_text(content)


def number_of(dataset: dict[str, Any]) -> int:
    """Return the version that the newest registration of a data set creates."""
    return int(str(dataset["ray_submission_id"]).rpartition("-a")[0].rpartition("-v")[2])


async def lose_jobs(service: Service, times: int) -> list[str]:
    """Lose the next Ray jobs of the data set, and return its state after each."""
    states = []
    for _ in range(times):
        await service.reconcile("datasets")
        service.ray.jobs[service.ray.submissions[-1]] = RayJobStatus.FAILED
        await service.reconcile("datasets")
        states.append((await get(service))["state"])
    return states

"""Requests to register data sets as the control plane writes them, jobs run in this process, and what they leave in the store."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.documents import DatasetRequest
from tinyclip.artifacts.paths import dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import DatasetPut, DatasetReport, DatasetVersion, Finding
from tinyclip_workers import jobs
from tinyclip_workers.runtime.ray_tasks import TaskStep

NAME = "pairs"
TASK_MODULES = ("scan.tasks", "images.task_images", "teacher_sample")
TASK_RUNNERS = tuple(f"tinyclip_workers.datasets.{name}.run_tasks" for name in TASK_MODULES)
"""Where tasks are started."""


def request(
    root: Path | str, shards: str | list[str], *, version: int = 1, attempt: int = 1, previous: str | None = None, **put: Any
) -> None:
    """Request a version. Keywords are fields of the request or of its source."""
    owned = ("image_key", "caption_key", "distinct_key", "where", "captions", "languages")
    source = {key: put.pop(key) for key in owned if key in put}
    wanted = DatasetPut.model_validate({"source": {"shards": shards, **source}, **put})
    document = DatasetRequest(name=NAME, version=version, attempt=attempt, request=wanted, previous=previous)
    ArtifactsStore(str(root)).write_bytes(f"datasets/{NAME}/request.json", document.model_dump_json().encode())


def job_arguments(root: Path | str, version: int = 1, attempt: int = 1) -> list[str]:
    return ["dataset", "--artifacts", str(root), "--dataset", NAME, "--version", str(version), "--attempt", str(attempt)]


def run_job(root: Path | str, version: int = 1, attempt: int = 1) -> int:
    """Run a job, with its tasks on the cluster of this process; return its exit status."""
    return jobs.main(job_arguments(root, version, attempt))


def run_tasks_here(task: Any, calls: Sequence[tuple[Any, ...]], **options: Any) -> Iterator[TaskStep | None]:
    """Run tasks in this process, one after the other; in the place of `run_tasks`."""
    for number, call in enumerate(calls):
        for done in task(*call):
            yield TaskStep(number, done)
        yield TaskStep(number, 0.0, finished=True)


@contextmanager
def without_ray() -> Iterator[None]:
    """Let jobs run their tasks in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TASK_RUNNERS:
            patch.setattr(name, run_tasks_here)
        yield


def register(root: Path, shards: str | list[str], **put: Any) -> DatasetReport:
    """Register version 1 in this process; return its report."""
    request(root, shards, **put)
    with without_ray():
        assert run_job(root) == 0, events(root)
    return report(root)


def failure(root: Path, shards: str | list[str], **put: Any) -> JSON:
    """Register a version that fails in this process; return its last event."""
    request(root, shards, **put)
    with without_ray():
        assert run_job(root) == 1
    last = events(root)[-1]
    assert last["type"] == "dataset.failed"
    return last


def events(root: Path | str, version: int = 1, attempt: int = 1) -> list[JSON]:
    store, folder = ArtifactsStore(str(root)), f"datasets/{NAME}/jobs/{version}-a{attempt}/events"
    segments = [store.read_bytes(f"{folder}/{name}").decode() for name in store.list(folder)]
    return [json.loads(line) for segment in segments for line in segment.splitlines()]


def report(root: Path | str, version: int = 1) -> DatasetReport:
    store = ArtifactsStore(str(root))
    return DatasetReport.model_validate_json(store.read_bytes(f"{dataset_version(NAME, version)}/report.json"))


def document(root: Path | str, version: int = 1) -> DatasetVersion:
    store = ArtifactsStore(str(root))
    return DatasetVersion.model_validate_json(store.read_bytes(f"{dataset_version(NAME, version)}/dataset.json"))


def finding(found: DatasetReport, code: str) -> Finding:
    [only] = [finding for finding in found.findings if finding.code == code]
    return only


def files(root: Path | str, version: int = 1) -> dict[str, bytes]:
    """Return the files of a version; its document without the time at which it was made."""
    store, folder = ArtifactsStore(str(root)), dataset_version(NAME, version)
    contents = {file.path.removeprefix(f"{folder}/"): store.read_bytes(file.path) for file in store.find(folder)}
    if "dataset.json" in contents:
        contents["dataset.json"] = json.dumps(document(root, version).model_dump(mode="json", exclude={"created_at"})).encode()
    return contents

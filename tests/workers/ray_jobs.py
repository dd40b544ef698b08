"""Jobs on a real local Ray: the artifacts of one, and the marks of tests that run some."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load
from tinyclip.artifacts.documents import Control, JobDocument
from tinyclip.artifacts.paths import attempt_events, job_control, job_spec
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.driver import run_attempt

from tests.ports import free_ports
from tests.s3 import s3_environment

[S3_PORT] = free_ports(1)
"""Chosen before Ray starts, because its processes take their environment from it."""

RAY_MARKS = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("ray_cluster"),
    # Ray's own: files and sockets of its processes, and names that it is about to rename.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@contextmanager
def local_cluster(cpus: int) -> Iterator[None]:
    """Start a cluster of this process; each of its processors may get a worker process, which imports for seconds."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        **s3_environment(S3_PORT),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=cpus, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A cluster of this process, with four processors."""
    with local_cluster(4):
        yield


class Artifacts:
    """One job in a new artifacts store, a folder or a URI."""

    def __init__(self, folder: Path | str, spec: JobSpec, *, job: str = "job_1", adopts: tuple[str, ...] = ()) -> None:
        self.folder, self.store, self.job, self.spec = folder, ArtifactsStore(str(folder)), job, spec
        document = JobDocument(job=job, name=spec.name, spec=spec, model_name=spec.name, model_version=1, adopts=list(adopts))
        self.store.write_bytes(job_spec(job), document.model_dump_json().encode())

    def attempt(self, number: int) -> bool:
        return run_attempt(JobAttempt.open(str(self.folder), self.job, number), str(self.folder))

    def control(self, **control: Any) -> None:
        self.store.write_bytes(job_control(self.job), Control(**control).model_dump_json().encode())

    def events(self, attempt: int) -> list[dict[str, Any]]:
        folder = attempt_events(self.job, attempt)
        segments = [self.store.read_bytes(f"{folder}/{name}").decode() for name in self.store.list(folder)]
        return [json.loads(line) for segment in segments for line in segment.splitlines()]

    def types(self, attempt: int) -> list[str]:
        return [event["type"] for event in self.events(attempt)]

    def student(self) -> dict[str, torch.Tensor]:
        return load(self.store.read_bytes("models/shapes/1/open_clip_model.safetensors"))

    def when(self, type: str, do: Any, *, step: int = 0, attempt: int = 1) -> threading.Thread:
        """Call `do` as soon as the attempt has sent an event of this type (at this step or later)."""

        def watch() -> None:
            for _ in range(2000):
                if any(e["type"] == type and e["data"].get("step", 0) >= step for e in self.events(attempt)):
                    do()
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread

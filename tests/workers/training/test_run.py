"""A whole attempt on a real local Ray: it succeeds, survives a killed worker, stops when told, says why it failed."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import ray
import torch
from safetensors.torch import load
from tinyclip.artifacts.documents import Control, JobDocument
from tinyclip.artifacts.paths import attempt_events, job_control, job_spec
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.folders import load_folder
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.driver import run_attempt

from tests.ports import free_ports
from tests.s3 import BUCKET, bucket_files, s3_environment, s3_server
from tests.workers.ray_workers import kill_train_workers
from tests.workers.shapes_data import write_shards
from tests.workers.training.test_trainer import RESNET, TEXT

[S3_PORT] = free_ports(1)
"""Decided before Ray starts: its processes take their environment from it."""

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    # Ray's own: files and sockets of its processes, and names that it means to rename.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "HOME": str(tmp_path_factory.mktemp("home")), **s3_environment(S3_PORT),
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    ray.init(address="local", num_cpus=4, object_store_memory=80_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


class Artifacts:
    """One job's corner of a fresh artifacts store, a folder or a URI."""

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
        """Call `do` as soon as the attempt has told of an event of this type (at this step or later)."""

        def watch() -> None:
            for _ in range(2000):
                if any(e["type"] == type and e["data"].get("step", 0) >= step for e in self.events(attempt)):
                    do()
                    return
                time.sleep(0.05)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        return thread


def two_stages(folder: Path, **changes: Any) -> JobSpec:
    """A plain CLIP, then a narrower student that is cut out of it; long enough to be interrupted."""
    shards = write_shards(folder, pairs=48)
    student = {"embed_dim": 32, "image": RESNET, "text": TEXT}
    document = {
        "name": "shapes",
        "data": {"train": {"shards": shards, "caption_key": "json.captions"}},
        "evaluation": {"tasks": [{"name": "find", "kind": "retrieval", "shards": shards}]},
        "stages": [
            {"name": "whole", "inherit": "none", "student": student, "train": {"steps": 30}},
            {"name": "narrow", "inherit": "manual", "student": {"image": {"width": 4}}, "train": {"steps": 4}},
        ],
        "objective": {"contrastive": 1},
        "optimizer": {"lr": 1e-3},
        "batch_size": 16,
        "checkpoint": {"every_steps": 10, "keep": 2},
        **changes,
    }
    return JobSpec.model_validate(document)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    artifacts = Artifacts(tmp_path_factory.mktemp("undisturbed"), two_stages(tmp_path_factory.mktemp("data")))
    assert artifacts.attempt(1)
    return artifacts


class TestSuccess:
    def test_the_history_reads_as_the_story_of_the_job(self, undisturbed: Artifacts) -> None:
        story = [type for type in undisturbed.types(1) if type not in ("progress", "log")]

        assert story == [
            "attempt.started",
            *["stage.started", "checkpoint", "checkpoint", "checkpoint", "stage.evaluating", "evaluation", "stage.finished"],
            *["stage.started", "checkpoint", "stage.evaluating", "evaluation", "stage.finished"],
            "model.exported",
            "attempt.succeeded",
        ]

    def test_open_clip_loads_the_version_and_sees_the_same(self, undisturbed: Artifacts) -> None:
        folder = str(undisturbed.folder / "models" / "shapes" / "1")
        theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        ours = load_folder(folder).model
        images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

        with torch.no_grad():
            difference = (theirs.eval().encode_image(images) - ours.encode_image(images)).abs().max()

        assert difference <= 1e-5

    def test_another_attempt_at_a_finished_job_only_says_so(self, undisturbed: Artifacts) -> None:
        assert undisturbed.attempt(2)
        story = [type for type in undisturbed.types(2) if type != "log"]
        assert story == ["attempt.started", "model.exported", "attempt.succeeded"]


class TestInterruption:
    def test_a_killed_worker_costs_no_bit_of_the_student(self, tmp_path: Path, undisturbed: Artifacts) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        killed: list[int] = []

        artifacts.when("checkpoint", lambda: killed.extend(kill_train_workers()))

        assert artifacts.attempt(1)
        assert killed
        assert "worker.restarted" in artifacts.types(1)
        wanted = undisturbed.student()
        found = artifacts.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def test_paused_and_taken_up_by_the_next_attempt_it_ends_with_the_same_student(
        self, tmp_path: Path, undisturbed: Artifacts
    ) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        # While the workers start: so small a stage may end before they look again.
        artifacts.when("stage.started", lambda: artifacts.control(fence=1, desired="pause"))

        assert artifacts.attempt(1)
        stopped = artifacts.events(1)[-1]
        assert (stopped["type"], stopped["data"]["desired"]) == ("attempt.stopped", "pause")
        artifacts.control(fence=2, desired="run")

        assert artifacts.attempt(2)
        wanted, found = undisturbed.student(), artifacts.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def test_cancelled_and_retried_as_another_job_it_ends_with_the_same_student(
        self, tmp_path: Path, undisturbed: Artifacts
    ) -> None:
        cancelled, at = Artifacts(tmp_path / "artifacts", undisturbed.spec), "jobs/job_1/stages/0-whole"
        shutil.copytree(undisturbed.folder / at / "a1" / "step-20", tmp_path / "artifacts" / at / "a1" / "step-20")

        retried = Artifacts(tmp_path / "artifacts", undisturbed.spec, job="job_2", adopts=("job_1",))
        assert retried.attempt(1)

        assert cancelled.store.list(f"{at}/a1") == ["step-20"]
        went_on = next(event for event in retried.events(1) if event["type"] == "worker.restarted")
        assert went_on["data"]["step"] == 20
        assert went_on["data"]["checkpoint"].startswith("jobs/job_2/stages/0-whole/a0/step-")
        wanted, found = undisturbed.student(), retried.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def test_an_attempt_that_was_overtaken_leaves_without_a_word(self, tmp_path: Path) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        artifacts.control(fence=2)

        assert artifacts.attempt(1)
        assert set(artifacts.types(1)) <= {"attempt.started", "log"}


@pytest.mark.long
class TestS3:
    def test_with_shards_and_artifacts_on_s3_a_killed_worker_costs_no_bit_either(
        self, tmp_path: Path, undisturbed: Artifacts
    ) -> None:
        spec = two_stages(tmp_path / "data")
        with s3_server(S3_PORT) as environment:
            bucket_files(environment).put(f"{tmp_path}/data/*.tar", f"{BUCKET}/data/")
            on_s3 = JobSpec.model_validate_json(spec.model_dump_json().replace(str(tmp_path), f"s3://{BUCKET}"))
            artifacts = Artifacts(f"s3://{BUCKET}/artifacts", on_s3)
            killed: list[int] = []
            artifacts.when("checkpoint", lambda: killed.extend(kill_train_workers()))

            assert artifacts.attempt(1)

            assert killed
            wanted, found = undisturbed.student(), artifacts.student()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


class TestFailure:
    def test_data_that_cannot_be_used_fails_once_and_for_all(self, tmp_path: Path) -> None:
        spec = two_stages(tmp_path / "data")
        spec.data.train.caption_key = "json.nothing"
        artifacts = Artifacts(tmp_path / "artifacts", spec)

        assert not artifacts.attempt(1)
        last = artifacts.events(1)[-1]
        assert (last["type"], last["data"]["code"], last["data"]["retryable"]) == ("attempt.failed", "unusable_data", False)
        assert "nothing" in last["message"]

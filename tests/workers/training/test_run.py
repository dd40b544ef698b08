"""A whole attempt on a real local Ray: it succeeds, survives a killed worker, stops on command, reports why it failed."""

import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.files.folders import load_folder

from tests.s3 import BUCKET, bucket_files, s3_server
from tests.workers.auto_stages import RESNET, TEXT
from tests.workers.ray_jobs import RAY_MARKS, S3_PORT, Artifacts
from tests.workers.ray_workers import kill_train_workers
from tests.workers.shapes_data import write_shards

pytestmark = RAY_MARKS


def two_stages(folder: Path, **changes: Any) -> JobSpec:
    """Return a plain CLIP, then a narrower student that inherits from it; long enough to be interrupted."""
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
        "precision": "fp32",  # the same for every job
        "checkpoint": {"every_steps": 10, "keep": 2},
        **changes,
    }
    return JobSpec.model_validate(document)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    artifacts = Artifacts(tmp_path_factory.mktemp("uninterrupted"), two_stages(tmp_path_factory.mktemp("data")))
    assert artifacts.attempt(1)
    return artifacts


class TestSuccess:
    def test_events_follow_the_course_of_the_job(self, uninterrupted: Artifacts) -> None:
        types = [type for type in uninterrupted.types(1) if type not in ("progress", "log")]

        assert types == [
            "attempt.started",
            *["stage.started", "checkpoint", "checkpoint", "checkpoint", "stage.evaluating", "evaluation", "stage.finished"],
            *["stage.started", "checkpoint", "stage.evaluating", "evaluation", "stage.finished"],
            "model.exported",
            "attempt.succeeded",
        ]

    def test_open_clip_loads_the_version_and_computes_the_same(self, uninterrupted: Artifacts) -> None:
        folder = str(uninterrupted.folder / "models" / "shapes" / "1")
        theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        ours = load_folder(folder).model
        images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))

        with torch.no_grad():
            difference = (theirs.eval().encode_image(images) - ours.encode_image(images)).abs().max()

        assert difference <= 1e-5

    def test_another_attempt_at_a_finished_job_is_a_no_op(self, uninterrupted: Artifacts) -> None:
        assert uninterrupted.attempt(2)
        types = [type for type in uninterrupted.types(2) if type != "log"]
        assert types == ["attempt.started", "model.exported", "attempt.succeeded"]


class TestInterruption:
    @pytest.mark.long  # the end-to-end tests kill a worker and compare students, too
    def test_a_killed_worker_changes_no_bit_of_the_student(self, tmp_path: Path, uninterrupted: Artifacts) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        killed: list[int] = []

        artifacts.when("checkpoint", lambda: killed.extend(kill_train_workers()))

        assert artifacts.attempt(1)
        assert killed
        assert "worker.restarted" in artifacts.types(1)
        wanted = uninterrupted.student()
        found = artifacts.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    @pytest.mark.long  # e2e/test_queue.py stops a job in the same way, and the next test continues from a checkpoint
    def test_paused_and_continued_by_the_next_attempt_it_ends_with_the_same_student(
        self, tmp_path: Path, uninterrupted: Artifacts
    ) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        # While the workers start: so short a stage may end before they read the control file again.
        artifacts.when("stage.started", lambda: artifacts.control(fence=1, desired="pause"))

        assert artifacts.attempt(1)
        stopped = artifacts.events(1)[-1]
        assert (stopped["type"], stopped["data"]["desired"]) == ("attempt.stopped", "pause")
        artifacts.control(fence=2, desired="run")

        assert artifacts.attempt(2)
        wanted, found = uninterrupted.student(), artifacts.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    @pytest.mark.long  # as test_adopt.py, without Ray
    def test_cancelled_and_retried_as_another_job_it_ends_with_the_same_student(
        self, tmp_path: Path, uninterrupted: Artifacts
    ) -> None:
        first_stage = uninterrupted.spec.model_copy(update={"stages": uninterrupted.spec.stages[:1]})
        cancelled, at = Artifacts(tmp_path / "artifacts", first_stage), "jobs/job_1/stages/0-whole"
        shutil.copytree(uninterrupted.folder / at / "a1" / "step-20", tmp_path / "artifacts" / at / "a1" / "step-20")

        retried = Artifacts(tmp_path / "artifacts", first_stage, job="job_2", adopts=("job_1",))
        assert retried.attempt(1)

        assert cancelled.store.list(f"{at}/a1") == ["step-20"]
        restarted = next(event for event in retried.events(1) if event["type"] == "worker.restarted")
        assert restarted["data"]["step"] == 20
        assert restarted["data"]["checkpoint"].startswith("jobs/job_2/stages/0-whole/a0/step-")
        wanted, found = load(uninterrupted.store.read_bytes(f"{at}/student/model.safetensors")), retried.student()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def test_a_superseded_attempt_reports_nothing(self, tmp_path: Path) -> None:
        artifacts = Artifacts(tmp_path / "artifacts", two_stages(tmp_path / "data"))
        artifacts.control(fence=2)

        assert artifacts.attempt(1)
        assert set(artifacts.types(1)) <= {"attempt.started", "log"}


@pytest.mark.long
class TestS3:
    def test_with_shards_and_artifacts_on_s3_a_killed_worker_changes_no_bit_either(
        self, tmp_path: Path, uninterrupted: Artifacts
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
            wanted, found = uninterrupted.student(), artifacts.student()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


class TestFailure:
    def test_unusable_data_fails_the_job_without_a_retry(self, tmp_path: Path) -> None:
        spec = two_stages(tmp_path / "data")
        spec.data.train.caption_key = "json.nothing"
        artifacts = Artifacts(tmp_path / "artifacts", spec)

        assert not artifacts.attempt(1)
        last = artifacts.events(1)[-1]
        assert (last["type"], last["data"]["code"], last["data"]["retryable"]) == ("attempt.failed", "unusable_data", False)
        assert "nothing" in last["message"]

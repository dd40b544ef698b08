"""A whole job of automatic and other stages with driver and worker in this process; everything else is real."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.masked import removed_share
from tinyclip_workers.model.summary import summarize

from tests.workers.attempts import PRUNE_STEP, STEPS, TWO, Job, kill_attempt
from tests.workers.auto_stages import TEACHER, auto

pytestmark = pytest.mark.usefixtures("without_a_cluster")
STAGES = TWO


def test_two_automatic_stages_end_as_a_version_with_their_diagrams(uninterrupted: Job) -> None:
    job = uninterrupted

    pruned = job.events("stage.pruned")
    version = job.version()
    assert [event["stage"] for event in pruned] == [0, 1]
    assert pruned[1]["data"] == summarize(version.layout).model_dump(mode="json")
    assert removed_share(TEACHER, version.layout, ["image", "text"]) > 0.45
    for stage, event in zip(("0-more", "1-less"), pruned, strict=True):
        diagram = job.store.read_bytes(f"jobs/job_1/stages/{stage}/layout.svg").decode()
        assert f"image tower: {event['data']['layout']['image']['width']} of 32 channels" in diagram
    assert [event["data"]["student"] for event in job.events("stage.started")] == [None, None]
    assert any("target_sparsity" in event["data"]["metrics"] for event in job.events("progress"))
    assert len(job.events("evaluation")) == 2 * (STEPS // 10 + 1)
    assert version.evaluation["find"].student["samples"] == 96
    assert load_folder(job.store.uri("models/shapes/1")).layout == version.layout


def test_automatic_stages_may_be_anywhere_in_a_chain(tmp_path: Path, spec_of_stages: Callable[..., JobSpec]) -> None:
    small = {"image": {"layers": 1, "width": 8, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
    narrow = {"image": {"width": 24}, "text": {"width": 24}}
    fresh = {**small, "embed_dim": 16, "image": {**small["image"], "patch_size": 16}}
    both = {"affinity": 1, "contrastive": 0.5}
    stages = [
        {"name": "narrow", "student": narrow, "train": {"steps": 2}, "objective": both, "optimizer": {"lr": 3e-3}},
        {**auto(0.15, prune_step=PRUNE_STEP), "train": {"steps": STEPS}, "optimizer": {"lr": 1e-3, "mask_lr": 0.4}},
        {"name": "same", "student": {"text": {}}, "train": {"steps": 3}, "batch_size": 4},
        {"name": "cut", "student": small, "train": {"steps": 2}, "objective": {"contrastive": 1}},
        {"name": "fresh", "inherit": "none", "student": fresh, "train": {"steps": 2}},
    ]
    job = Job(tmp_path / "store", spec_of_stages(*stages))

    assert job.attempt()

    started = {event["data"]["name"]: event["data"]["student"] for event in job.events("stage.started")}
    assert started["auto"] is None
    assert started["same"]["layout"] == job.events("stage.pruned")[0]["data"]["layout"]
    assert started["cut"]["layout"]["image"]["width"] == job.version().layout.image.width == 8
    progress = [last_progress(job, stage) for stage in range(len(stages))]
    assert [event["step"] for event in progress] == [2, STEPS, 3, 2, 2]
    assert [sorted({"affinity", "contrastive"} & event["metrics"].keys()) for event in progress] == [
        ["affinity", "contrastive"], ["affinity"], ["affinity"], ["contrastive"], ["affinity"],
    ]  # fmt: skip
    assert ["sparsity" in event["metrics"] for event in progress] == [False, True, False, False, False]
    # The last of two steps is half way down the cosine.
    assert progress[0]["metrics"]["lr"] == pytest.approx(1.5e-3)


def last_progress(job: Job, stage: int) -> dict[str, Any]:
    data: dict[str, Any] = [event["data"] for event in job.events("progress") if event["stage"] == stage][-1]
    return data


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("point", "place"),
    [
        pytest.param("step", f"0/{PRUNE_STEP - 1}", marks=pytest.mark.long),
        ("folded", "0"),
        ("written", "0-more/a1/step-20/optimizer.safetensors"),
        pytest.param("step", f"0/{STEPS - 1}", marks=pytest.mark.long),
        pytest.param("written", "0-more/student/manifest.json", marks=pytest.mark.long),
        pytest.param("next", "1", marks=pytest.mark.long),
        ("step", f"1/{PRUNE_STEP + 1}"),
    ],
)
def test_a_job_whose_process_is_killed_is_finished_by_the_next_attempt_with_the_same_student(
    tmp_path: Path, spec_of_stages: Callable[..., JobSpec], uninterrupted: Job, point: str, place: str
) -> None:
    """kill -9 before, at and after a prune step, between two files of a checkpoint, and between stages."""
    broken = Job(tmp_path, spec_of_stages(*STAGES))

    assert kill_attempt(broken.root, point, place) == -signal.SIGKILL
    assert not broken.store.exists("models/shapes/1/model.json")
    assert broken.attempt(2)

    broken.assert_same_student(uninterrupted)


def test_a_student_larger_than_the_pruned_one_fails_the_job_without_a_retry(
    tmp_path: Path, spec_of_stages: Callable[..., JobSpec]
) -> None:
    wide = {"image": {"width": 32, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
    job = Job(tmp_path / "store", spec_of_stages(auto(0.3), {"name": "wide", "student": wide, "train": {"steps": 2}}))

    assert not job.attempt()

    failure = job.events("attempt.failed")[0]
    assert failure["data"] == {"code": "impossible_student", "retryable": False}
    assert "image.width: 32 is more than the" in failure["message"]

"""A whole job whose students are cut by calibration pairs, with driver and worker in this process; everything else is real."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.masked import removed_share

from tests.workers.attempts import Job, kill_attempt
from tests.workers.auto_stages import TEACHER

pytestmark = pytest.mark.usefixtures("without_a_cluster")
CUT = 12
STAGES: list[dict[str, Any]] = [
    {"name": "manual", "student": {"embed_dim": 12, "image": {"width": 24, "mlp_ratio": 3}}, "train": {"steps": 6}},
    {
        "name": "frozen", "inherit": "auto", "train": {"steps": CUT + 10},
        "prune": {"search": "frozen", "target_sparsity": 0.3, "prune_step": CUT, "sparsity_warmup": 1},
    },
    {"name": "units", "inherit": "auto", "train": {"steps": 12}, "prune": {"search": "importance", "target_sparsity": 0.5}},
]  # fmt: skip


def test_every_stage_ends_with_a_student_of_its_size(uninterrupted: Job) -> None:
    layout, pruned = uninterrupted.version().layout, uninterrupted.events("stage.pruned")

    assert [event["stage"] for event in pruned] == [1, 2]
    manual = uninterrupted.events("stage.started")[0]["data"]["student"]["layout"]
    assert (manual["image"]["width"], manual["image"]["mlp"]) == (24, [72, 72])
    narrow = TEACHER.image.model_copy(update={"width": 24, "heads": [3, 3], "mlp": [72, 72]})
    original = TEACHER.model_copy(update={"image": narrow})
    assert 0.5 <= removed_share(original, layout, ["image", "text"]) < 0.55


def test_a_frozen_search_reports_a_rate_of_zero_until_its_cut(uninterrupted: Job) -> None:
    rates = {
        event["data"]["step"]: event["data"]["metrics"]["lr"]
        for event in uninterrupted.events("progress")
        if event["stage"] == 1
    }

    assert rates, "no progress was reported"
    assert all((rate == 0) == (step <= CUT) for step, rate in rates.items() if step < CUT + 10)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("point", "place"),
    [
        ("step", "0/3"),
        pytest.param("step", f"1/{CUT - 1}", marks=pytest.mark.long),
        ("folded", "1"),
        pytest.param("step", f"1/{CUT + 9}", marks=pytest.mark.long),
        pytest.param("folded", "2", marks=pytest.mark.long),
        ("step", "2/11"),
    ],
)
def test_a_job_whose_process_is_killed_is_finished_by_the_next_attempt_with_the_same_student(
    tmp_path: Path, spec_of_stages: Callable[..., JobSpec], uninterrupted: Job, point: str, place: str
) -> None:
    """kill -9 before the first checkpoint of a manual stage, and before, at and after the cuts of the automatic ones."""
    broken = Job(tmp_path, spec_of_stages(*STAGES))

    assert kill_attempt(broken.root, point, place) == -signal.SIGKILL
    assert broken.attempt(2)

    broken.assert_same_student(uninterrupted)

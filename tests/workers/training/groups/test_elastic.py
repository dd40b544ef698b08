"""Elastic groups on a real local Ray with 4 CPUs: they take the room there is, grow, lose workers, and train the same student."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.training.groups import room

from tests.workers.auto_stages import TEXT
from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.ray_workers import kill_train_workers
from tests.workers.training.groups.test_placement import reserved
from tests.workers.training.test_run import two_stages

pytestmark = RAY_MARKS

STUDENT = {
    "embed_dim": 32, "image": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}, "text": TEXT,
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"CHECK_S": 0.1, "PLACE_S": 1.0, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(room, name, seconds)


def job_on(folder: Path, workers: Any, *, steps: int) -> Artifacts:
    """Return a job of one stage on those workers."""
    stage = {"name": "whole", "inherit": "none", "student": STUDENT, "train": {"steps": steps}}
    changes = {"stages": [stage], "optimizer": {"lr": 1e-4}, "checkpoint": {"every_steps": 50}}
    return Artifacts(folder / "artifacts", two_stages(folder / "data", resources={"workers": workers}, **changes))


def sizes_of(artifacts: Artifacts) -> list[int]:
    return [event["data"]["workers"] for event in artifacts.events(1) if event["type"] == "worker_group.sized"]


@pytest.mark.long
def test_a_group_that_grows_and_loses_a_worker_trains_the_student_of_one_worker(tmp_path: Path) -> None:
    steps, killed = 400, list[int]()
    alone, elastic = job_on(tmp_path / "alone", 1, steps=steps), job_on(tmp_path / "elastic", {"min": 1, "max": 3}, steps=steps)
    assert alone.attempt(1)

    def kill_one() -> None:
        killed.extend(kill_train_workers(1))

    with reserved(3) as release:
        elastic.when("checkpoint", release)
        elastic.when("worker.restarted", lambda: elastic.when("checkpoint", kill_one, step=restarts_of(elastic)[0][1] + 50))
        assert elastic.attempt(1)

    assert killed
    assert sizes_of(elastic) == [1, 2, 2]  # a batch of 16 does not divide over three workers
    (before_growing, grown_at), (before_loss, restarted_at) = restarts_of(elastic)
    assert grown_at == before_growing  # no step is repeated
    assert before_loss - 50 <= restarted_at <= before_loss
    wanted, found = alone.student(), elastic.student()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-5, msg=name)


def restarts_of(artifacts: Artifacts) -> list[tuple[int, int]]:
    """Return for each restart the last step before it that was reported, and the step at which it continued."""
    found, step = list[tuple[int, int]](), 0
    for event in artifacts.events(1):
        if event["type"] == "worker.restarted":
            found.append((step, event["data"]["step"]))
        step = event["data"].get("step", step) if event["type"] in ("progress", "checkpoint") else step
    return found

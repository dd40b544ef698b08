"""Where a stage starts in the data: where the previous one ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import TEACHER

SAME = {"text": {}}


@pytest.fixture(autouse=True)
def without_a_cluster() -> Iterator[pytest.MonkeyPatch]:
    with no_cluster() as patch:
        yield patch


def test_a_stage_starts_with_the_batch_after_the_last_one_of_the_previous_stage(
    tmp_path: Path, without_a_cluster: pytest.MonkeyPatch
) -> None:
    spec, seen = specs_in(tmp_path / "inputs"), list[list[tuple[DataPosition, torch.Tensor]]]()
    step = StageTrainer.train_step

    def recorded(trainer: StageTrainer, batch: Batch, *args: Any) -> Any:
        seen[-1].append((batch.position, batch.tokens_BT))
        return step(trainer, batch, *args)

    without_a_cluster.setattr(StageTrainer, "train_step", recorded)
    for name, lengths in (("long", [14]), ("short", [9, 5])):
        seen.append([])
        stages = [{"name": f"s{number}", "student": SAME, "train": {"steps": steps}} for number, steps in enumerate(lengths)]
        assert Job(tmp_path / name, spec(*stages)).attempt()

    one_stage, two_stages = seen
    assert [position for position, _ in two_stages] == [position for position, _ in one_stage]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(one_stage, two_stages, strict=True))
    assert two_stages[-1][0] == DataPosition(1, 2)  # 12 batches an epoch


def test_after_a_student_of_an_older_version_it_starts_with_the_first_epoch(tmp_path: Path) -> None:
    job = Job(tmp_path / "store", specs_in(tmp_path / "inputs")({"name": "old", "student": SAME, "train": {"steps": 1}}))
    run = JobAttempt.open(job.root, "job_1", 1)
    run.finish_stage(0, FinishedStudent(TEACHER, b"", {}))

    assert DataPosition.from_json(run.position_after_stage(0), 8) == DataPosition()

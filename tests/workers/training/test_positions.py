"""Where a stage starts in the data: where the previous one ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.data.stream import Batch, DataPosition
from tinyclip_workers.runtime.attempt import FinishedStudent, JobAttempt
from tinyclip_workers.training.positions import own_position, position_after, position_document
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
    spec, seen = specs_in(tmp_path / "inputs"), list[list[tuple[int, tuple[int, int], torch.Tensor]]]()
    step = StageTrainer.train_step

    def recorded(trainer: StageTrainer, batch: Batch, *args: Any) -> Any:
        seen[-1].append((batch.share, batch.position, batch.tokens_BT))
        return step(trainer, batch, *args)

    without_a_cluster.setattr(StageTrainer, "train_step", recorded)
    for name, lengths in (("long", [14]), ("short", [9, 5])):
        seen.append([])
        stages = [{"name": f"s{number}", "student": SAME, "train": {"steps": steps}} for number, steps in enumerate(lengths)]
        assert Job(tmp_path / name, spec(*stages)).attempt()

    one_stage, two_stages = seen
    assert [(share, position) for share, position, _ in two_stages] == [(share, position) for share, position, _ in one_stage]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(one_stage, two_stages, strict=True))
    assert two_stages[-1][1] == (1, 2)  # 12 batches an epoch


class TestPositions:
    POSITION = DataPosition(batches=7, shares={0: (2, 3), 1: (3, 1)}, processes=2)

    def test_a_stage_with_the_same_batches_continues_at_the_position(self) -> None:
        assert position_after(position_document(self.POSITION, 64), 64) == self.POSITION

    def test_with_another_batch_size_it_starts_the_next_epoch(self) -> None:
        assert position_after(position_document(self.POSITION, 64), 32) == DataPosition(epoch=4)

    def test_with_fewer_workers_it_starts_the_epoch_after_the_furthest_one(self) -> None:
        behind = DataPosition(batches=3, shares={0: (1, 3)}, processes=2)

        assert own_position([behind.to_json(), self.POSITION.to_json()]) == DataPosition(epoch=4)

    def test_a_position_of_an_older_version_is_read(self) -> None:
        assert own_position([{"batches": 3, "shares": {"0": [1, 3]}}]) == DataPosition(batches=3, shares={0: (1, 3)})

    def test_after_a_student_of_an_older_version_it_starts_with_the_first_epoch(self, tmp_path: Path) -> None:
        job = Job(tmp_path / "store", specs_in(tmp_path / "inputs")({"name": "old", "student": SAME, "train": {"steps": 1}}))
        run = JobAttempt.open(job.root, "job_1", 1)
        run.finish_stage(0, FinishedStudent(TEACHER, b"", {}))

        assert position_after(run.position_after_stage(0), 8) == DataPosition()

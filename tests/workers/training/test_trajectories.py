"""Whole training runs, manual and automatic, in one process and in several, against the reference's."""

import pytest
import torch

from tests.workers.layouts import layout_of
from tests.workers.parity import Arrays, Near, assert_near, document
from tests.workers.processes import on_workers
from tests.workers.reference_arguments import ReferenceArguments
from tests.workers.trajectory import LOSS, assert_course, train

DOCUMENT = document("traj.json")


def arguments(tag: str) -> ReferenceArguments:
    return ReferenceArguments(DOCUMENT["runs"][tag]["args"])


@pytest.mark.parametrize("tag", DOCUMENT["runs"])
def test_a_run_takes_the_course_of_the_reference(tag: str, near: Near) -> None:
    torch.set_num_threads(1)
    workers = DOCUMENT["runs"][tag]["world_size"]
    assert arguments(tag).batch * workers == DOCUMENT["global_batch"]
    assert arguments(tag).steps == DOCUMENT["steps"]

    found = [train(0, tag)] if workers == 1 else on_workers(workers, train, tag)

    assert_course(found, Arrays("traj.npz", f"{tag}/"), near)


def test_the_number_of_workers_does_not_change_the_manual_course() -> None:
    tags = [tag for tag in DOCUMENT["runs"] if not arguments(tag).towers]
    losses = [Arrays("traj.npz", f"{tag}/")["loss"].mean(0) for tag in tags]

    for other in losses[1:]:
        assert_near(other, losses[0], LOSS, "loss")
    assert layout_of(DOCUMENT["student_manual"]) != layout_of(DOCUMENT["teacher"])

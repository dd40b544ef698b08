"""Whole training runs, manual and automatic, in one process and in several, against the reference's."""

import pytest
import torch
from torch import Tensor

from tests.workers.layouts import layout_of
from tests.workers.masked_case import TOWERS
from tests.workers.parity import Arrays, assert_near
from tests.workers.processes import on_workers
from tests.workers.trajectory import DOCUMENT, Args, train

LOSS, WEIGHTS = 1e-4, 5e-4


@pytest.mark.parametrize("tag", DOCUMENT["runs"])
def test_a_run_takes_the_course_of_the_reference(tag: str) -> None:
    torch.set_num_threads(1)
    workers = DOCUMENT["runs"][tag]["world_size"]
    assert Args(tag).batch * workers == DOCUMENT["global_batch"]
    assert Args(tag).steps == DOCUMENT["steps"]

    found = [train(0, tag)] if workers == 1 else on_workers(workers, train, tag)

    arrays = Arrays("traj.npz", f"{tag}/")
    for rank, told in enumerate(found):
        assert_near(told["loss"], arrays["loss"][rank], LOSS, f"loss of worker {rank}")
        assert_near(told["soft_i2t_t2i"], arrays["soft_i2t_t2i"][rank], LOSS, f"both directions of worker {rank}")
        assert_near(told["affinity"], arrays["soft_i2t_t2i"][rank].mean(-1), LOSS, f"affinity of worker {rank}")
    assert_steps_are_the_references(found[0], arrays)
    if Args(tag).prune_step is not None:
        assert_search_is_the_references(found[0], arrays)
    final = arrays.under("final/")
    assert final or workers > 1
    assert_weights_are_the_references(found[0], final)


def assert_steps_are_the_references(told: dict[str, Tensor], arrays: Arrays) -> None:
    assert_near(told["lr"], arrays["lr"], 1e-6, "lr")
    assert_near(told["grad_norm"], arrays["grad_norm"], WEIGHTS, "grad_norm")
    assert told["step"].tolist() == arrays["step"].tolist()
    for model in ("student", "teacher"):
        name = f"{model}_logit_scale_at_step_start"
        assert_near(told[name], arrays[name], 1e-6, name)


def assert_search_is_the_references(told: dict[str, Tensor], arrays: Arrays) -> None:
    for name in ("lambda_at_step_start", "hidden_loga_at_step_start"):
        assert_near(told[name], arrays[name], WEIGHTS, name)
    for tower in TOWERS:
        for group in ("hidden", "heads", "intermediate"):
            name = f"{tower}_loga_final_{group}"
            assert_near(told[name], arrays[name].flatten(), WEIGHTS, name)


def assert_weights_are_the_references(told: dict[str, Tensor], final: dict[str, Tensor]) -> None:
    for name, theirs in final.items():
        assert_near(told[f"final/{name}"], theirs, WEIGHTS, name)


def test_the_number_of_workers_does_not_change_the_manual_course() -> None:
    tags = [tag for tag in DOCUMENT["runs"] if Args(tag).prune_step is None]
    losses = [Arrays("traj.npz", f"{tag}/")["loss"].mean(0) for tag in tags]

    for other in losses[1:]:
        assert_near(other, losses[0], LOSS, "loss")
    assert layout_of(DOCUMENT["student_manual"]) != layout_of(DOCUMENT["teacher"])

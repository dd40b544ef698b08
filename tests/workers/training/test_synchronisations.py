"""A training step waits for the device once, when it reads its numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.preprocessing import PixelInput
from tinyclip_workers.training import batch_norm
from tinyclip_workers.training.objective.terms import TERMS
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.teachers.inputs import InputPreparation, Reading

from tests.workers.auto_stages import STUDENT, TEACHER, auto, batches_of, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

ONE_READ = ["copy to the host"]
MANUAL = {"name": "manual", "inherit": "manual", "student": STUDENT.model_dump(exclude_none=True), "train": {"steps": 4}}
AUGMENTED = {"degrees": 10, "color_jitter": 0.2, "gray": 0.1, "translate": 0.1, "horizontal_flip": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "manual": {"stage": MANUAL},
    "masked": {"stage": auto(0.5)},
    "masked, towers apart": {"stage": auto(0.5, joint=False)},
    "two teachers": {"stage": MANUAL, "teachers": 2},
    "many terms": {
        "stage": MANUAL,
        "objective": {term: 1.0 for term in TERMS if term not in ("cluster_instance", "sigmoid_affinity")},
        "averaging": {},
    },
}


COLORS = ((0.4, 0.5, 0.6), (0.3, 0.3, 0.3))


def waits_of_steps(rank: int, shards: str) -> dict[str, list[str]]:
    """Return what a host would wait for in the second step of each case, whole and in parts."""
    from tests.workers import counted_device

    found = {}
    batch = next(batches_of(trainer_of(spec_of(shards, MANUAL))))
    for name, case in CASES.items():
        for micro_batch in (None, 3):
            changes = {field: value for field, value in case.items() if field not in ("stage", "teachers")}
            spec = spec_of(shards, case["stage"], micro_batch=micro_batch, **changes)
            spec.data.train.augment = spec.data.train.augment.model_validate(AUGMENTED)
            trainer = trainer_of(spec, device=counted_device.DEVICE)
            own = batch
            if case.get("teachers") == 2:
                trainer.teachers.append(other_teacher().to(counted_device.DEVICE))
                readings = [teacher.reading for teacher in trainer.teachers]
                trainer.prepare = InputPreparation(COLORS, readings, spec.data.train.augment, counted_device.DEVICE)
                own = replace(batch, teacher_images=[torch.zeros(len(batch.images_BCHW), 3, 48, 48, dtype=torch.uint8)])
            for _ in range(2):
                counted_device.waits.clear()
                result, _ = trainer.train_step(own)
                assert result.finite
            found[f"{name}, micro_batch {micro_batch}"] = list(counted_device.waits)
    found["batch norm"] = waits_of_batch_norm(counted_device)
    return found


def waits_of_batch_norm(counted_device: Any) -> list[str]:
    """Return what a host would wait for in the batch normalisation of several workers, for each kind of momentum."""
    batch_norm.world_size = lambda: 2
    torch.distributed.all_reduce = lambda _: None  # gloo has no such device
    layers = [batch_norm.SynchronizedBatchNorm2d(3, momentum=momentum).to(counted_device.DEVICE) for momentum in (0.1, None)]
    x_BCHW = torch.randn(4, 3, 2, 2).to(counted_device.DEVICE).requires_grad_()
    counted_device.waits.clear()
    for layer in layers:
        layer(x_BCHW).square().sum().backward()
    return list(counted_device.waits)


def other_teacher() -> FrozenTeacher:
    """Make a teacher whose images have other colors and another size."""
    image = TEACHER.image.model_copy(update={"image_size": 48})
    model = build_model(TEACHER.model_copy(update={"image": image}))
    reading = Reading(COLORS, PixelInput(48))
    return FrozenTeacher(model, None, reading=reading, weight=0.5)


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    found: dict[str, list[str]] = on_workers(1, waits_of_steps, write_shards(tmp_path_factory.mktemp("shapes")))[0]
    return found


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_once(waits: dict[str, list[str]], case: str, micro_batch: int | None) -> None:
    assert waits[f"{case}, micro_batch {micro_batch}"] == ONE_READ


def test_batch_normalisation_over_several_workers_reads_nothing(waits: dict[str, list[str]]) -> None:
    assert waits["batch norm"] == []

"""Averaged weights: their formula, their checkpoints, and when they are exported."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.training.averaging import UPDATES, WeightAverage
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.observation.watch import AgreementWatch
from tinyclip_workers.training.trainer import StageTrainer
from torch import nn

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import PRUNE_STEP, RESNET, TEXT, auto, batches_of, equal, spec_of, trainer_of
from tests.workers.shapes_data import write_shards

AVERAGING = {"averaging": {"decay": 0.5}}
RESNET_STAGE = {
    "name": "resnet", "inherit": "none", "student": {"embed_dim": 16, "image": RESNET, "text": TEXT}, "train": {"steps": 20},
}  # fmt: skip


def take_steps(trainer: StageTrainer, count: int) -> StageTrainer:
    for batch in itertools.islice(batches_of(trainer), count):
        trainer.train_step(batch)
    return trainer


def average_of(trainer: StageTrainer) -> dict[str, torch.Tensor]:
    assert trainer.learner.average is not None
    return trainer.learner.average.tensors()


def test_the_decay_grows_to_its_value() -> None:
    model = nn.Linear(2, 2)
    average, wanted = WeightAverage(model, 0.25), model.weight.detach().clone()

    for decay in (0.1, 2 / 11, 0.25, 0.25):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update()
        wanted = decay * wanted + (1 - decay) * model.weight.detach()

    torch.testing.assert_close(average.tensors()["weight"], wanted)
    assert int(average.tensors()[UPDATES]) == 4


def test_statistics_of_batch_norm_are_averaged_and_their_counter_is_copied() -> None:
    model = nn.BatchNorm2d(3)
    average = WeightAverage(model, 0.9)
    assert model.running_mean is not None
    assert model.num_batches_tracked is not None
    model.running_mean.fill_(1.0)
    model.num_batches_tracked.fill_(7)

    average.update()

    found = average.averaged(model)  # type: ignore[type-var]
    assert torch.allclose(found.running_mean, torch.full((3,), 0.9))
    assert int(found.num_batches_tracked) == 7
    assert torch.equal(model.running_mean, torch.ones(3))


def test_a_step_that_changes_nothing_is_not_averaged(tmp_path: Path) -> None:
    trainer = trainer_of(spec_of(write_shards(tmp_path), RESNET_STAGE, **AVERAGING))
    take_steps(trainer, 1)
    with torch.no_grad():
        trainer.student.text_projection.fill_(float("nan"))

    take_steps(trainer, 1)

    assert int(average_of(trainer)[UPDATES]) == 1


def test_the_weights_in_training_are_those_of_a_job_without_averaging(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)

    with_it = take_steps(trainer_of(spec_of(shards, RESNET_STAGE, **AVERAGING)), 3)
    without = take_steps(trainer_of(spec_of(shards, RESNET_STAGE)), 3)

    assert equal(with_it.student.state_dict(), without.student.state_dict())
    assert without.learner.average is None
    assert "average" not in without.learner.tensors()


def test_resumed_it_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    spec, store = spec_of(write_shards(tmp_path / "data"), RESNET_STAGE, **AVERAGING), ArtifactsStore(str(tmp_path / "store"))
    uninterrupted, first, resumed = (trainer_of(spec) for _ in range(3))

    take_steps(uninterrupted, 5)
    take_steps(first, 3)
    save_checkpoint(store, "stage/a1", 3, first.learner.tensors(), first.state())
    checkpoint = latest_checkpoint(store, "stage")
    assert checkpoint is not None
    resumed.restore(checkpoint)
    take_steps(resumed, 2)

    assert equal(average_of(uninterrupted), average_of(resumed))


def test_a_checkpoint_without_an_average_starts_one_with_its_weights(tmp_path: Path) -> None:
    shards, store = write_shards(tmp_path / "data"), ArtifactsStore(str(tmp_path / "store"))
    first = take_steps(trainer_of(spec_of(shards, RESNET_STAGE)), 2)
    save_checkpoint(store, "stage/a1", 2, first.learner.tensors(), first.state())
    resumed, checkpoint = trainer_of(spec_of(shards, RESNET_STAGE, **AVERAGING)), latest_checkpoint(store, "stage")
    assert checkpoint is not None

    resumed.restore(checkpoint)

    found = average_of(resumed)
    assert int(found.pop(UPDATES)) == 0
    assert all(torch.equal(tensor, first.student.state_dict()[name]) for name, tensor in found.items())


def test_it_starts_after_the_cut_of_an_automatic_stage(tmp_path: Path) -> None:
    trainer = trainer_of(spec_of(write_shards(tmp_path), auto(0.5), **AVERAGING))
    take_steps(trainer, 1)
    before = trainer.learner.average

    trainer.learner.prune_if_due(PRUNE_STEP)

    assert before is None
    found = average_of(trainer)
    assert int(found.pop(UPDATES)) == 0
    assert found.keys() == trainer.student.state_dict().keys()


def test_a_stage_may_switch_it_off(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)

    assert trainer_of(spec_of(shards, {**RESNET_STAGE, "averaging": {"decay": 0}}, **AVERAGING)).learner.average is None


class TestExport:
    @pytest.fixture(autouse=True)
    def patch(self) -> Iterator[pytest.MonkeyPatch]:
        with no_cluster() as patch:
            yield patch

    @pytest.mark.parametrize(("kls", "exported"), [([0.9, 0.5, 0.4], "averaged"), ([0.9, 0.5, 0.5], "last")])
    def test_the_weights_that_agree_better_are_exported(
        self, tmp_path: Path, patch: pytest.MonkeyPatch, kls: list[float], exported: str
    ) -> None:
        stage = {"name": "same", "student": {"text": {}}, "train": {"steps": 4}}
        document: dict[str, Any] = specs_in(tmp_path / "inputs")(stage).model_dump() | AVERAGING
        measured, job = iter(kls), Job(tmp_path / "store", JobSpec.model_validate(document))
        patch.setattr(AgreementWatch, "kl", lambda watch, model: next(measured))

        assert job.attempt()

        [event] = job.events("average.compared")
        assert event["data"] == {"kl": kls[1], "averaged_kl": kls[2], "exported": exported}
        assert job.events("agreement.measured")[-1]["data"]["kl"] == min(kls)
        folder = "jobs/job_1/stages/0-same/a1/step-4"
        files = {name: load(job.store.read_bytes(f"{folder}/{name}.safetensors")) for name in ("average", "model")}
        wanted = {"averaged": files["average"], "last": files["model"]}[exported]
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in job.weights().items())

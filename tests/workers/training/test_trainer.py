"""The loop of a stage: reproducible, exactly resumable, the same for one worker and for two."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.data.stream.batches import slots_of
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training import trainer as stage_trainer
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.optimizer import learning_rate
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.trainer import Diverged, StageTrainer, StepResult
from torch import Tensor

from tests.workers.auto_stages import RESNET, TEXT, VIT, batches_of, equal, hooks, weights
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards


def spec_of(shards: str, image: dict[str, Any], **changes: Any) -> JobSpec:
    stage = {"name": "only", "inherit": "none", "student": {"embed_dim": 32, "image": image, "text": TEXT}, "train": {"steps": 6}}
    document = {
        "name": "shapes",
        "teacher": {"model": "local-dir:not-read-here"},
        "data": {
            "train": {
                "shards": shards,
                "caption_key": "json.captions",
                "augment": {"degrees": 10, "color_jitter": 0.2, "translate": 0.1, "horizontal_flip": 0.5},
            }
        },
        "stages": [stage],
        "objective": {"affinity": 1.0, "contrastive": 0.5},
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "batch_size": 16,
        **changes,
    }
    return JobSpec.model_validate(document)


def trainer_of(spec: JobSpec) -> StageTrainer:
    torch.manual_seed(11)
    stage = resolve_stage(spec, 0, None, None, 96)
    teacher = FrozenTeacher(build_model(stage.layout), 20.0)
    student = build_model(stage.layout)
    return StageTrainer(spec, stage, student, [teacher], torch.device("cpu"), mean=OPENAI_MEAN, std=OPENAI_STD)


class TestOneProcess:
    @pytest.mark.parametrize("image", [RESNET, VIT], ids=["resnet", "vit"])
    def test_the_same_spec_gives_the_same_student_twice(self, tmp_path: Path, image: dict[str, Any]) -> None:
        spec = spec_of(write_shards(tmp_path), image)
        students = []
        for _ in range(2):
            trainer = trainer_of(spec)
            assert trainer.run(batches_of(trainer), hooks()) is Command.RUN
            students.append(weights(trainer))

        assert equal(*students)

    def test_it_learns(self, tmp_path: Path) -> None:
        spec = spec_of(write_shards(tmp_path), VIT, objective={"contrastive": 1}, optimizer={"lr": 2e-3})
        spec.stages[0].train.steps = 60
        losses: list[float] = []
        trainer = trainer_of(spec)

        trainer.run(batches_of(trainer), hooks(progress=lambda result: losses.append(result.loss)))

        assert sum(losses[-5:]) / 5 < 0.75 * losses[0]

    def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path: Path) -> None:
        spec = spec_of(write_shards(tmp_path / "data"), RESNET, checkpoint={"every_steps": 4, "keep": 1})
        uninterrupted = trainer_of(spec)
        uninterrupted.run(batches_of(uninterrupted), hooks())
        store = ArtifactsStore(str(tmp_path / "artifacts"))

        def save(trainer: StageTrainer) -> None:
            save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())

        first = trainer_of(spec)
        _steps(first, 4)
        save(first)
        second = trainer_of(spec)
        checkpoint = latest_checkpoint(store, "stage")
        assert checkpoint is not None
        second.restore(checkpoint)
        second.run(batches_of(second), hooks())

        assert second.step == 6
        assert equal(weights(uninterrupted), weights(second))

    def test_pause_saves_a_checkpoint_and_stops(self, tmp_path: Path) -> None:
        spec = spec_of(write_shards(tmp_path), VIT)
        trainer, saved, results = trainer_of(spec), [], []

        command = trainer.run(
            batches_of(trainer),
            hooks(
                command=lambda: Command.PAUSE if len(results) == 2 else Command.RUN,
                progress=results.append,
                checkpoint=lambda t: saved.append(t.step),
            ),
        )

        assert (command, saved, trainer.step) == (Command.PAUSE, [3], 3)

    def test_cancel_stops_without_a_checkpoint(self, tmp_path: Path) -> None:
        spec = spec_of(write_shards(tmp_path), VIT)
        trainer, saved = trainer_of(spec), []

        command = trainer.run(
            batches_of(trainer), hooks(command=lambda: Command.CANCEL, checkpoint=lambda t: saved.append(t.step))
        )

        assert (command, saved, trainer.step) == (Command.CANCEL, [], 1)

    def test_a_gradient_that_is_not_finite_changes_nothing_and_too_many_end_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage_trainer, "MAX_SKIPPED_STEPS", 5)
        spec = spec_of(write_shards(tmp_path), VIT)
        trainer = trainer_of(spec)
        batch = next(batches_of(trainer))
        with torch.no_grad():
            trainer.student.text_projection.fill_(float("nan"))
        before = trainer.student.visual.conv1.weight.clone()

        result, _ = trainer.train_step(batch)

        assert not result.finite
        assert torch.equal(before, trainer.student.visual.conv1.weight)
        for _ in range(4):
            trainer.train_step(batch)
        with pytest.raises(Diverged, match=r"optimizer\.lr"):
            trainer.train_step(batch)

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_trains_in_precision(self, tmp_path: Path, precision: str) -> None:
        spec = spec_of(write_shards(tmp_path), VIT, precision=precision)
        trainer = trainer_of(spec)
        before = weights(trainer)

        results = _steps(trainer, 2)

        assert all(result.finite for result in results)
        assert not torch.equal(before["visual.proj"], trainer.student.visual.proj)

    def test_a_fixed_temperature_stays_and_a_learned_one_moves(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        fixed = trainer_of(spec_of(shards, VIT, temperature={"student": 30}))
        learned = trainer_of(spec_of(shards, VIT, temperature={"student": "learned"}))
        before = learned.student.logit_scale.item()

        for trainer in (fixed, learned):
            _steps(trainer, 2)

        assert fixed.student.logit_scale.exp().item() == pytest.approx(30)
        assert learned.student.logit_scale.item() != before


def _steps(trainer: StageTrainer, count: int) -> list[StepResult]:
    return [trainer.train_step(batch)[0] for batch in itertools.islice(batches_of(trainer), count)]


def step_on_a_part(rank: int, world_size: int, image: dict[str, Any], shards: str) -> dict[str, Tensor]:
    """Return loss and averaged gradients of one step on this worker's part of one fixed global batch, in fp64.

    Rounding in fp32, which a ResNet's batch norm magnifies a thousandfold, would hide what is compared here.
    """
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # all that the step casts to fp32
    spec = spec_of(shards, image).model_copy(deep=True)
    spec.data.train.augment = spec.data.train.augment.model_copy(
        update={"degrees": 0.0, "color_jitter": 0.0, "translate": 0.0, "horizontal_flip": 0.0}
    )
    trainer = trainer_of(spec)
    whole = next(batches_of(trainer))
    size = spec.batch_size // world_size
    part = slice(rank * size, (rank + 1) * size)
    batch = slots_of(whole, part)
    result, _ = trainer.train_step(batch)
    gradients = {name: p.grad.clone() for name, p in trainer.student.named_parameters() if p.grad is not None}
    return {"loss": torch.tensor(result.loss), "grad_norm": torch.tensor(result.grad_norm), **gradients}


class TestSeveralWorkers:
    @pytest.mark.parametrize("image", [RESNET, VIT], ids=["resnet", "vit"])
    def test_one_global_batch_gives_one_loss_and_gradient_for_one_worker_and_for_two(
        self, tmp_path: Path, image: dict[str, Any]
    ) -> None:
        shards = write_shards(tmp_path)
        alone = on_workers(1, step_on_a_part, 1, image, shards)[0]

        for found in on_workers(2, step_on_a_part, 2, image, shards):
            assert found.keys() == alone.keys()
            for name, wanted in alone.items():
                assert (found[name] - wanted).abs().max() <= 1e-6 * max(1.0, wanted.abs().max().item()), name


class TestSchedule:
    def test_it_warms_up_in_a_line_and_falls_along_a_cosine(self) -> None:
        optimizer = spec_of("x", VIT, optimizer={"lr": 1.0, "warmup_steps": 10}).optimizer

        rates = [learning_rate(step, 110, optimizer) for step in range(110)]

        assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert rates[10] == 1.0
        assert rates[60] == pytest.approx(0.5)
        assert rates[109] == pytest.approx(0.5 * (1 + math.cos(math.pi * 99 / 100)))

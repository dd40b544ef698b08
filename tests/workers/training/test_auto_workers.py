"""An automatic stage on several workers, and in micro-batches."""

from typing import Any

import pytest
import torch
from tinyclip_workers.data.stream.batches import Batch, slots_of
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.training import trainer as stage_trainer
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.objective.projection import Projection
from tinyclip_workers.training.teachers.inputs import ModelInput, PreparedBatch
from tinyclip_workers.training.trainer import Diverged
from torch import Tensor

from tests.workers.auto_stages import (
    BATCH,
    all_tensors,
    auto,
    batches_of,
    calibrated_trainer,
    hooks,
    spec_of,
    train,
    trainer_of,
    weights,
)
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


def whole_stage(rank: int, world_size: int, shards: str) -> dict[str, Tensor]:
    """Train a stage on this worker's parts of fixed global batches, in fp64, with the same noise on all workers.

    Rounding in fp32, which Adam enlarges, would hide what is compared here.
    """
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # all that the step casts to fp32
    draw = MaskedTowers.noise
    MaskedTowers.noise = lambda self, _: draw(self, torch.Generator().manual_seed(7))  # type: ignore[method-assign]
    trainer = trainer_of(spec_of(shards, {**auto(0.5, prune_step=12), "train": {"steps": 16}}))
    part = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    parts = (
        slots_of(whole, part) for whole in batches_of(trainer)
    )
    losses: list[float] = []
    trainer.run(parts, hooks(progress=lambda result: losses.append(result.loss)))
    return {"losses": torch.tensor(losses), **weights(trainer)}


MAX_SKIPPED_STEPS = 5


def one_worker_sees_nan(rank: int, shards: str) -> dict[str, Any]:
    """Return how a run ends in which only worker 1 has images of NaN."""
    stage_trainer.MAX_SKIPPED_STEPS = MAX_SKIPPED_STEPS  # in this process of the test; a hundred such steps take long
    long = {**auto(0.5, prune_step=2 * MAX_SKIPPED_STEPS), "train": {"steps": 3 * MAX_SKIPPED_STEPS}}
    trainer = trainer_of(spec_of(shards, long))
    before = {name: tensor.clone() for name, tensor in all_tensors(trainer).items()}
    batch, prepare = next(batches_of(trainer)), trainer.prepare

    def prepare_badly(batch: Batch) -> PreparedBatch:
        student, teachers = prepare(batch)
        images_BCHW = student.images_BCHW * (float("nan") if rank == 1 else 1.0)
        return PreparedBatch(ModelInput(images_BCHW, student.tokens_BT), teachers)

    trainer.prepare = prepare_badly  # type: ignore[assignment]
    try:
        trainer.run(iter(lambda: batch, None), hooks())
    except Diverged:
        unchanged = all(torch.equal(tensor, before[name]) for name, tensor in all_tensors(trainer).items())
        return {"step": trainer.step, "unchanged": unchanged}
    return {}


class TestSeveralWorkers:
    def test_all_skip_what_one_cannot_use_and_raise_together(self, shards: str) -> None:
        """In the reference that worker exits after 100 steps and the others hang (F16)."""
        ends = on_workers(2, one_worker_sees_nan, shards)

        assert ends[0] == ends[1]
        assert ends[0] == {"step": MAX_SKIPPED_STEPS + 1, "unchanged": True}

    def test_two_workers_end_with_the_student_of_one(self, shards: str) -> None:
        alone = on_workers(1, whole_stage, 1, shards)[0]

        for found in on_workers(2, whole_stage, 2, shards):
            assert found.keys() == alone.keys()
            for name, wanted in alone.items():
                torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-6, msg=name)

    def test_each_step_draws_noise_of_its_own_which_is_that_of_all_workers(
        self, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        seeds = set()
        for rank in range(2):
            monkeypatch.setattr("tinyclip_workers.training.trainer.rank", lambda rank=rank: rank)
            for step in range(3):
                trainer.step = step
                seeds.add(trainer._mask_seed())

        assert len(seeds) == 3


def calibrated_stage(rank: int, shards: str, search: dict[str, Any]) -> dict[str, Tensor]:
    """Train a stage that is cut by calibration pairs; returns the weights after the cut and at the end."""
    stage = {"name": "cut", "inherit": "auto", "train": {"steps": 6}, "prune": {"target_sparsity": 0.4, **search}}
    trainer = calibrated_trainer(spec_of(shards, stage), noise=1e-3 * rank)
    cut: dict[str, Tensor] = {}
    train(trainer, pruned=lambda pruned: cut.update({f"cut {name}": tensor for name, tensor in weights(pruned).items()}))
    return {**cut, **weights(trainer)}


@pytest.mark.parametrize("search", [{}, {"prune_step": 3, "sparsity_warmup": 1}], ids=["importance", "frozen"])
def test_workers_whose_calibration_is_rounded_differently_train_one_student(shards: str, search: dict[str, Any]) -> None:
    one, other = on_workers(2, calibrated_stage, shards, search)

    assert any(name.startswith("cut ") for name in one)
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def narrow_stage(rank: int, shards: str) -> dict[str, Tensor]:
    stage = {"name": "narrow", "student": {"embed_dim": 12, "text": {}}, "train": {"steps": 2}}
    return all_tensors(train(calibrated_trainer(spec_of(shards, stage), noise=1e-3 * rank)))


def test_workers_whose_calibration_is_rounded_differently_train_one_projection(shards: str) -> None:
    one, other = on_workers(2, narrow_stage, shards)

    assert "projection.text.weight" in one
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_projection_is_trained_only_after_the_cut_of_a_frozen_search(shards: str) -> None:
    prune = {"target_sparsity": 0.4, "prune_step": 2, "sparsity_warmup": 1}
    trainer = calibrated_trainer(spec_of(shards, {"name": "cut", "inherit": "auto", "train": {"steps": 4}, "prune": prune}))
    old, projection = trainer.learner, Projection(16, 12, seed=0)
    learner = StageLearner(old.model, trainer.stage, 20.0, torch.device("cpu"), projection, calibration=old._calibration)

    searching = [parameter.requires_grad for parameter in projection.parameters()]
    learner.prune_if_due(2)

    assert not any(searching)
    assert all(parameter.requires_grad for parameter in projection.parameters())
    assert learner.optimizer is not None
    trained = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert {id(parameter) for parameter in projection.parameters()} <= trained


class TestMicroBatches:
    @pytest.mark.parametrize("micro_batch", [3, 100])
    def test_parts_of_a_batch_give_the_gradient_of_the_whole(self, shards: str, micro_batch: int) -> None:
        whole, in_parts = (trainer_of(spec_of(shards, auto(0.5), micro_batch=size)) for size in (None, micro_batch))

        results = [trainer.train_step(next(batches_of(trainer)))[0] for trainer in (whole, in_parts)]

        assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)
        assert results[0].terms == pytest.approx(results[1].terms, rel=1e-5)
        pairs = zip(*(trainer.learner.towers.named_parameters() for trainer in (whole, in_parts)), strict=True)
        for (name, one), (_, other) in pairs:
            if one.grad is not None:
                assert other.grad is not None
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)

"""An automatic stage: masks find the student, the fold makes it, and a resumed run finds the same one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.architecture import resolve_layout
from tinyclip_workers.checkpoint import latest_checkpoint, save_checkpoint
from tinyclip_workers.control import Command
from tinyclip_workers.data import Batch
from tinyclip_workers.inherit import ImpossibleInheritance
from tinyclip_workers.masked import MaskedTowers, removed_share
from tinyclip_workers.store import Store
from tinyclip_workers.trainer import MAX_SKIPPED_STEPS, Diverged, StageTrainer, StepResult
from torch import Tensor

from tests.workers.auto_stages import (
    BATCH,
    PRUNE_STEP,
    STEPS,
    TEACHER,
    auto,
    batches_of,
    equal,
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


@pytest.fixture(scope="module")
def half(shards: str) -> StageTrainer:
    """A stage that halves the teacher, at its end."""
    return train(trainer_of(spec_of(shards, auto(0.5))))


class TestSearch:
    def test_a_stage_ends_with_a_student_of_the_size_asked_for(self, half: StageTrainer) -> None:
        layout = half.learner.layout

        assert half.learner.search is None
        assert removed_share(TEACHER, layout, ["image", "text"]) == pytest.approx(0.5, abs=0.12)
        assert half.learner.sparsity() == pytest.approx(removed_share(TEACHER, layout, ["image", "text"]))
        assert layout.image.width < TEACHER.image.width
        assert half.student.visual.proj.shape == (layout.image.width, layout.embed_dim)

    def test_sparsity_is_told_at_every_step(self, shards: str) -> None:
        told: list[StepResult] = []
        trainer = train(trainer_of(spec_of(shards, auto(0.5))), progress=told.append)

        under_masks, pruned = told[:PRUNE_STEP], told[PRUNE_STEP:]
        assert all(result.sparsity["target_sparsity"] == 0.5 for result in under_masks[1:])
        assert under_masks[-1].sparsity["sparsity"] > under_masks[0].sparsity["sparsity"] + 0.3
        assert {result.sparsity["sparsity"] for result in pruned} == {trainer.learner.sparsity()}
        assert under_masks[-1].sparsity["sparsity"] == pytest.approx(pruned[0].sparsity["sparsity"], abs=0.1)

    def test_the_learning_rate_warms_up_to_the_prune_step_and_falls_from_there(self, shards: str) -> None:
        told: list[StepResult] = []
        train(trainer_of(spec_of(shards, auto(0.5))), progress=told.append)

        rates = [result.lr / 1e-3 for result in told]
        assert rates[:PRUNE_STEP] == pytest.approx([(step + 1) / PRUNE_STEP for step in range(PRUNE_STEP)])
        assert rates[PRUNE_STEP] == 1
        assert rates[PRUNE_STEP:] == sorted(rates[PRUNE_STEP:], reverse=True)

    def test_the_small_student_computes_what_the_masked_one_did_and_goes_on_learning(self, shards: str) -> None:
        """With a new optimizer for the new weights: the reference's, resumed, trained nothing (F3)."""
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        batch, masked, small = next(batches_of(trainer)), [], []

        def keep(into: list[Any]) -> Any:
            with torch.no_grad():
                towers = trainer.learner.towers
                into += towers(*trainer.prepare(batch))[:2]

        train(trainer, progress=lambda result: keep(masked) if result.step == PRUNE_STEP else None, pruned=lambda _: keep(small))
        before = [*small]
        keep(small)

        for one, other in zip(masked, before, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert all((one - other).abs().max() > 1e-3 for one, other in zip(small[:2], small[2:], strict=True))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_trains_in_precision(self, shards: str, precision: str) -> None:
        told: list[StepResult] = []
        train(trainer_of(spec_of(shards, auto(0.5), precision=precision)), progress=told.append)

        assert len(told) == STEPS
        assert all(result.finite for result in told)

    @pytest.mark.parametrize("tower", ["image", "text"])
    def test_one_tower_alone_is_pruned(self, shards: str, tower: str) -> None:
        """The reference pruned both or none (F11)."""
        trainer = train(trainer_of(spec_of(shards, auto(0.5, towers=[tower]))))

        other = "text" if tower == "image" else "image"
        assert getattr(trainer.learner.layout, other) == getattr(TEACHER, other)
        assert 0.4 < removed_share(TEACHER, trainer.learner.layout, [tower]) < 0.9

    def test_the_text_tower_of_a_resnet_is_pruned(self, shards: str) -> None:
        image = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32}
        resnet = resolve_layout(StudentSpec.model_validate({"image": image}), TEACHER)
        trainer = train(trainer_of(spec_of(shards, auto(0.5, towers=["text"])), original=resnet))

        assert trainer.learner.layout.image == resnet.image
        assert removed_share(resnet, trainer.learner.layout, ["text"]) > 0.4
        assert trainer.student.state_dict()["visual.bn1.num_batches_tracked"] == STEPS

    def test_each_tower_reaches_a_target_of_its_own(self, shards: str) -> None:
        together = train(trainer_of(spec_of(shards, auto(0.5))))
        apart = train(trainer_of(spec_of(shards, auto(0.5, joint=False, granularity="paper"))))

        least = [
            min(removed_share(TEACHER, trainer.learner.layout, [tower]) for tower in ("image", "text"))
            for trainer in (together, apart)
        ]
        assert least[0] < least[1]

    def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_masks(self, shards: str) -> None:
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        batch = next(batches_of(trainer))
        with torch.no_grad():
            trainer.student.text_projection.fill_(float("nan"))
        before = {name: tensor.clone() for name, tensor in _all_tensors(trainer).items() if "text_projection" not in name}

        result, _ = trainer.train_step(batch)

        assert not result.finite
        after = _all_tensors(trainer)
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        for _ in range(MAX_SKIPPED_STEPS - 1):
            trainer.train_step(batch)
        with pytest.raises(Diverged):
            trainer.train_step(batch)


def _all_tensors(trainer: StageTrainer) -> dict[str, Tensor]:
    return {f"{kind}.{name}": tensor for kind, named in trainer.learner.tensors().items() for name, tensor in named.items()}


class TestResumption:
    @pytest.mark.parametrize("stop", [PRUNE_STEP - 6, PRUNE_STEP, PRUNE_STEP + 2])
    def test_interrupted_and_resumed_equals_undisturbed_bit_for_bit(
        self, half: StageTrainer, shards: str, tmp_path: Path, stop: int
    ) -> None:
        store, spec = Store(str(tmp_path)), spec_of(shards, auto(0.5), checkpoint={"every_steps": stop, "keep": 1})

        def save_and_die(trainer: StageTrainer) -> None:
            save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(trainer_of(spec), checkpoint=save_and_die)
        checkpoint = latest_checkpoint(store, "stage")
        assert checkpoint is not None
        assert ("masks" in checkpoint.tensors) == (stop <= PRUNE_STEP)

        second = trainer_of(spec)
        second.restore(checkpoint)
        train(second)

        assert (second.step, second.learner.layout) == (STEPS, half.learner.layout)
        assert equal(weights(half), weights(second))

    def test_a_pause_under_masks_goes_on_where_it_stood(self, half: StageTrainer, shards: str, tmp_path: Path) -> None:
        store, spec = Store(str(tmp_path)), spec_of(shards, auto(0.5))
        first, seen = trainer_of(spec), []

        command = first.run(
            batches_of(first),
            hooks(
                command=lambda: Command.PAUSE if len(seen) == 4 else Command.RUN,
                progress=seen.append,
                checkpoint=lambda t: save_checkpoint(store, "stage/a1", t.step, t.learner.tensors(), t.state()),
            ),
        )
        checkpoint = latest_checkpoint(store, "stage")
        assert checkpoint is not None
        second = trainer_of(spec)
        second.restore(checkpoint)
        train(second)

        assert (command, checkpoint.state["step"]) == (Command.PAUSE, 5)
        assert json.loads(json.dumps(checkpoint.state)) == checkpoint.state
        assert equal(weights(half), weights(second))


class TestChain:
    def test_a_second_automatic_stage_prunes_on_from_the_first(self, half: StageTrainer, shards: str) -> None:
        """A constraint is one-sided: masks that move this fast end below the size asked for."""
        spec = spec_of(shards, auto(0.5), auto(0.75, name="more", start_sparsity=0.5))

        quarter = train(trainer_of(spec, 1, half))

        assert quarter.stage.layout == half.learner.layout
        assert quarter.stage.original == TEACHER
        assert 0.72 < removed_share(TEACHER, quarter.learner.layout, ["image", "text"]) < 0.95
        for tower in ("image", "text"):
            small, large = getattr(quarter.learner.layout, tower), getattr(half.learner.layout, tower)
            assert small.width <= large.width
            assert all(few <= many for few, many in zip(small.heads + small.mlp, large.heads + large.mlp, strict=True))

    @pytest.mark.parametrize("inherit", ["manual", "none"])
    def test_other_stages_go_before_and_after(self, shards: str, inherit: str) -> None:
        plain = {
            "name": "plain",
            "inherit": inherit,
            "student": {"image": {"width": 8, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}},
            "train": {"steps": 2},
        }
        first = {**plain, "name": "first", "student": {"image": {"width": 24}, "text": {"width": 24}}}
        same = {**plain, "name": "same", "student": {"text": {}}}
        spec = spec_of(shards, first, auto(0.15), *([same] if inherit == "manual" else []), plain)

        trainer = None
        originals = []
        for index in range(len(spec.stages)):
            trainer = train(trainer_of(spec, index, trainer))
            originals.append(trainer.stage.original)

        assert trainer is not None
        assert originals[0] is None and originals[-1] is None  # noqa: PT018
        assert originals[1] is not None
        assert originals[1].image.width == 24
        assert trainer.learner.layout.image.width == 8

    def test_a_student_that_no_longer_fits_is_refused_by_its_field(self, half: StageTrainer, shards: str) -> None:
        student = {"image": {"width": 32, "mlp_ratio": 1}, "text": {"width": 8, "heads": 1, "mlp_ratio": 1}}
        spec = spec_of(shards, auto(0.5), {"name": "wide", "student": student, "train": {"steps": 2}})

        with pytest.raises(ImpossibleInheritance, match=r"image\.width: 32 is more than the"):
            trainer_of(spec, 1, half)


def whole_stage(rank: int, world_size: int, shards: str) -> dict[str, Tensor]:
    """The final student of a stage on this worker's parts of fixed global batches, in fp64, with one noise for all workers.

    fp32 adds its own rounding, and Adam enlarges it: it would hide what is compared here.
    """
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # all that the step casts to fp32
    draw = MaskedTowers.noise
    MaskedTowers.noise = lambda self, _: draw(self, torch.Generator().manual_seed(7))  # type: ignore[method-assign]
    trainer = trainer_of(spec_of(shards, auto(0.5)))
    part = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    parts = (
        Batch(whole.images_BCHW[part], whole.tokens_BT[part], 0, whole.position, whole.skipped) for whole in batches_of(trainer)
    )
    losses: list[float] = []
    trainer.run(parts, hooks(progress=lambda result: losses.append(result.loss)))
    return {"losses": torch.tensor(losses), **weights(trainer)}


def one_worker_sees_nan(rank: int, shards: str) -> dict[str, Any]:
    """How a run ends in which worker 1 alone has pictures that are not numbers."""
    long = {**auto(0.5, prune_step=2 * MAX_SKIPPED_STEPS), "train": {"steps": 3 * MAX_SKIPPED_STEPS}}
    trainer = trainer_of(spec_of(shards, long))
    before = {name: tensor.clone() for name, tensor in _all_tensors(trainer).items()}
    batch, prepare = next(batches_of(trainer)), trainer.prepare

    def prepare_badly(batch: Batch) -> tuple[Tensor, Tensor]:
        images_BCHW, tokens_BT = prepare(batch)
        return images_BCHW * (float("nan") if rank == 1 else 1.0), tokens_BT

    trainer.prepare = prepare_badly  # type: ignore[method-assign]
    try:
        trainer.run(iter(lambda: batch, None), hooks())
    except Diverged:
        unchanged = all(torch.equal(tensor, before[name]) for name, tensor in _all_tensors(trainer).items())
        return {"step": trainer.step, "unchanged": unchanged}
    return {}


class TestSeveralWorkers:
    def test_all_skip_what_one_cannot_use_and_leave_together(self, shards: str) -> None:
        """In the reference the one worker leaves after 100 steps and the others wait for ever (F16)."""
        ends = on_workers(2, one_worker_sees_nan, shards)

        assert ends[0] == ends[1]
        assert ends[0] == {"step": MAX_SKIPPED_STEPS + 1, "unchanged": True}

    def test_two_workers_end_with_the_student_of_one(self, shards: str) -> None:
        alone = on_workers(1, whole_stage, 1, shards)[0]

        for found in on_workers(2, whole_stage, 2, shards):
            assert found.keys() == alone.keys()
            for name, wanted in alone.items():
                torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-6, msg=name)

    def test_workers_and_steps_draw_noise_of_their_own(self, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        seeds = set()
        for rank in range(2):
            monkeypatch.setattr("tinyclip_workers.trainer.rank", lambda rank=rank: rank)
            for step in range(3):
                trainer.step = step
                seeds |= {trainer._seed([]), trainer._seed([1])}

        assert len(seeds) == 12


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

"""An automatic stage: masks select the student, the fold creates it, and a resumed run ends with the same one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import StudentSpec
from tinyclip_workers.inheritance.leading import ImpossibleInheritance
from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.masked import removed_share
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training import trainer as stage_trainer
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.trainer import Diverged, StageTrainer, StepResult

from tests.workers.auto_stages import (
    PRUNE_STEP,
    STEPS,
    TEACHER,
    all_tensors,
    auto,
    batches_of,
    equal,
    hooks,
    spec_of,
    train,
    trainer_of,
    weights,
)
from tests.workers.shapes_data import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def finished(shards: str) -> tuple[StageTrainer, list[StepResult]]:
    """A finished stage that halves the teacher, and its steps."""
    results: list[StepResult] = []
    return train(trainer_of(spec_of(shards, auto(0.5))), progress=results.append), results


@pytest.fixture(scope="module")
def half(finished: tuple[StageTrainer, list[StepResult]]) -> StageTrainer:
    return finished[0]


@pytest.fixture(scope="module")
def results(finished: tuple[StageTrainer, list[StepResult]]) -> list[StepResult]:
    return finished[1]


class TestSearch:
    def test_a_stage_ends_with_a_student_of_the_target_size(self, half: StageTrainer) -> None:
        layout = half.learner.layout

        assert half.learner.search is None
        assert 0.5 <= removed_share(TEACHER, layout, ["image", "text"]) < 0.5 + 1 / TEACHER.text.width
        assert half.learner.sparsity() == pytest.approx(removed_share(TEACHER, layout, ["image", "text"]))
        assert layout.image.width < TEACHER.image.width
        assert half.student.visual.proj.shape == (layout.image.width, layout.embed_dim)

    def test_sparsity_is_reported_at_every_step(self, half: StageTrainer, results: list[StepResult]) -> None:
        under_masks, pruned = results[:PRUNE_STEP], results[PRUNE_STEP:]

        assert all(result.sparsity["target_sparsity"] == 0.5 for result in under_masks[1:])
        assert under_masks[-1].sparsity["sparsity"] > under_masks[0].sparsity["sparsity"] + 0.3
        assert {result.sparsity["sparsity"] for result in pruned} == {half.learner.sparsity()}
        image, full = half.learner.layout.image, TEACHER.image
        assert pruned[-1].sparsity["image_channels_kept"] == image.width / full.width
        assert pruned[-1].sparsity["image_heads_kept"] == sum(image.heads or []) / sum(full.heads or [])
        assert pruned[-1].sparsity["image_mlp_kept"] == sum(image.mlp or []) / sum(full.mlp or [])
        assert {f"text_{part}_kept" for part in ("channels", "heads", "mlp")} <= pruned[-1].sparsity.keys()
        assert under_masks[-1].sparsity["sparsity"] == pytest.approx(pruned[0].sparsity["sparsity"], abs=0.1)

    def test_the_learning_rate_warms_up_to_the_prune_step_and_falls_from_there(self, results: list[StepResult]) -> None:
        rates = [result.lr / 1e-3 for result in results]

        assert rates[:PRUNE_STEP] == pytest.approx([(step + 1) / PRUNE_STEP for step in range(PRUNE_STEP)])
        assert rates[PRUNE_STEP] == 1
        assert rates[PRUNE_STEP:] == sorted(rates[PRUNE_STEP:], reverse=True)

    def test_the_folded_student_computes_what_the_masked_one_did_and_keeps_learning(self, shards: str) -> None:
        """It has a new optimizer for the new weights: resumed, the reference's trained nothing (F3)."""
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        batch, masked, folded = next(batches_of(trainer)), [], []

        def keep_masked(result: StepResult) -> None:
            if result.step == PRUNE_STEP and trainer.learner.search is not None:
                trainer.learner.search.match_target_sparsity()  # as the prune step does
                keep(masked)

        def keep(into: list[Any]) -> Any:
            with torch.no_grad():
                towers = trainer.learner.towers
                into += towers(*trainer.prepare(batch).student)[:2]

        train(trainer, progress=keep_masked, pruned=lambda _: keep(folded))
        before = [*folded]
        keep(folded)

        for one, other in zip(masked, before, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert all((one - other).abs().max() > 1e-3 for one, other in zip(folded[:2], folded[2:], strict=True))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_it_trains_in_precision(self, shards: str, results: list[StepResult], precision: str) -> None:
        if precision != "fp32":  # the default on a CPU
            results = []
            train(trainer_of(spec_of(shards, auto(0.5), precision=precision)), progress=results.append)

        assert len(results) == STEPS
        assert all(result.finite for result in results)

    @pytest.mark.parametrize("tower", ["image", "text"])
    def test_one_tower_alone_is_pruned(self, shards: str, tower: str) -> None:
        """The reference pruned both or none (F11)."""
        trainer = train(trainer_of(spec_of(shards, auto(0.5, towers=[tower]))))

        other = "text" if tower == "image" else "image"
        assert getattr(trainer.learner.layout, other) == getattr(TEACHER, other)
        assert 0.5 <= removed_share(TEACHER, trainer.learner.layout, [tower]) < 0.5 + 1 / TEACHER.text.width

    def test_the_text_tower_of_a_resnet_is_pruned(self, shards: str) -> None:
        image = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 32}
        resnet = resolve_layout(StudentSpec.model_validate({"image": image}), TEACHER)
        trainer = train(trainer_of(spec_of(shards, auto(0.5, towers=["text"])), original=resnet))

        assert trainer.learner.layout.image == resnet.image
        assert 0.5 <= removed_share(resnet, trainer.learner.layout, ["text"]) < 0.5 + 1 / TEACHER.text.width
        assert trainer.student.state_dict()["visual.bn1.num_batches_tracked"] == STEPS

    def test_each_tower_reaches_a_target_of_its_own(self, half: StageTrainer, shards: str) -> None:
        apart = train(trainer_of(spec_of(shards, auto(0.5, joint=False, granularity="paper"))))

        least = [
            min(removed_share(TEACHER, trainer.learner.layout, [tower]) for tower in ("image", "text"))
            for trainer in (half, apart)
        ]
        assert least[0] < least[1]

    def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_masks(
        self, shards: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stage_trainer, "MAX_SKIPPED_STEPS", 5)
        trainer = trainer_of(spec_of(shards, auto(0.5)))
        batch = next(batches_of(trainer))
        with torch.no_grad():
            trainer.student.text_projection.fill_(float("nan"))
        before = {name: tensor.clone() for name, tensor in all_tensors(trainer).items() if "text_projection" not in name}

        result, _ = trainer.train_step(batch)

        assert not result.finite
        after = all_tensors(trainer)
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        for _ in range(4):
            trainer.train_step(batch)
        with pytest.raises(Diverged):
            trainer.train_step(batch)


class TestResumption:
    @pytest.mark.parametrize("stop", [PRUNE_STEP - 6, PRUNE_STEP, PRUNE_STEP + 2])
    def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
        self, half: StageTrainer, shards: str, tmp_path: Path, stop: int
    ) -> None:
        store, spec = ArtifactsStore(str(tmp_path)), spec_of(shards, auto(0.5), checkpoint={"every_steps": stop, "keep": 1})

        def save_and_stop(trainer: StageTrainer) -> None:
            save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(trainer_of(spec), checkpoint=save_and_stop)
        checkpoint = latest_checkpoint(store, "stage")
        assert checkpoint is not None
        assert ("masks" in checkpoint.tensors) == (stop <= PRUNE_STEP)

        second = trainer_of(spec)
        second.restore(checkpoint)
        train(second)

        assert (second.step, second.learner.layout) == (STEPS, half.learner.layout)
        assert equal(weights(half), weights(second))

    def test_a_pause_under_masks_is_resumed_exactly(self, half: StageTrainer, shards: str, tmp_path: Path) -> None:
        store, spec = ArtifactsStore(str(tmp_path)), spec_of(shards, auto(0.5))
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
    def test_a_second_automatic_stage_prunes_the_student_of_the_first(self, half: StageTrainer, shards: str) -> None:
        """A constraint is one-sided: masks that move this fast end below the target size."""
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
    def test_other_stages_may_come_before_and_after(self, shards: str, inherit: str) -> None:
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

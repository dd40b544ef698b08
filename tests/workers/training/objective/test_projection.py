"""The projection of students whose embedding size differs from the teacher's: trained, resumed, not exported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.clusters import save_clusters
from tinyclip_workers.training.objective.losses import TeacherEmbeddings
from tinyclip_workers.training.objective.projection import RIDGE, Projection, WithProjection
from tinyclip_workers.training.optimizer import make_optimizer
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.trainer import StageTrainer, StepResult
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from tests.workers.auto_stages import (
    PRUNE_STEP,
    STEPS,
    TEACHER,
    all_tensors,
    auto,
    batches_of,
    calibrated_trainer,
    equal,
    spec_of,
    train,
    trainer_of,
)
from tests.workers.one_step import accumulate_gradients, global_batch, masked_student, noise_of, rows_of
from tests.workers.plain_objectives import TERMS
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

SIZE = 11
"""Embedding size of the teacher; the student's is 8."""
OBJECTIVE = {"affinity": 1.0, "contrastive": 0.5, **{name: 1.0 + i for i, name in enumerate(TERMS)}}


def teacher(images_BCHW: Tensor, tokens_BT: Tensor) -> TeacherEmbeddings:
    """Return embeddings that depend on a seed and the batch."""
    generator = torch.Generator().manual_seed(2)
    image_map, text_map = torch.randn(2, 3 * 16 * 16, SIZE, generator=generator, dtype=torch.float64)
    image_BE = normalize(images_BCHW.flatten(1) @ image_map, dim=-1)
    text_BE = normalize(tokens_BT.double() @ text_map[: tokens_BT.shape[1]], dim=-1)
    return TeacherEmbeddings(image_BE, text_BE, 20.0)


def loss_and_gradients(rank: int, workers: int, micro_batch: int | None) -> dict[str, Tensor]:
    """Take one step with every term, in fp64, under masks."""
    masked = masked_student()
    towers = WithProjection(masked, Projection(8, SIZE, seed=5).double())
    images, tokens = (whole[rows_of(rank, workers)] for whole in global_batch())
    clusters_KE = normalize(torch.randn(5, SIZE, generator=torch.Generator().manual_seed(6), dtype=torch.float64), dim=-1)
    loss, _ = accumulate_gradients(
        DistributedDataParallel(towers) if workers > 1 else towers, [teacher], (images, tokens), OBJECTIVE,
        noise=noise_of(masked), penalty=masked.sparsity_penalty(0).loss, micro_batch=micro_batch, clusters_KE=clusters_KE,
    )  # fmt: skip
    return {"loss": loss} | {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    found = loss_and_gradients(0, 1, None)
    assert {"projection.image.weight", "projection.text.bias", "towers.clip.logit_scale"} <= found.keys()
    assert all(found[f"projection.{tower}.weight"].abs().max() > 1e-3 for tower in ("image", "text"))
    return found


def assert_near(found: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    assert found.keys() == whole.keys()
    for name in whole.keys() - {"loss"}:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("micro_batch", [5, 1])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(whole: dict[str, Tensor], micro_batch: int) -> None:
    found = loss_and_gradients(0, 1, micro_batch)

    assert found["loss"].item() == pytest.approx(whole["loss"].item(), rel=1e-10)
    assert_near(found, whole)


def on_one_of_two(rank: int) -> list[dict[str, Tensor]]:
    return [loss_and_gradients(rank, 2, part) for part in (None, 4)]


def test_two_workers_whole_and_in_parts_give_the_gradient_of_the_whole(whole: dict[str, Tensor]) -> None:
    for first, second in zip(*on_workers(2, on_one_of_two), strict=True):
        assert (first["loss"] + second["loss"]).item() / 2 == pytest.approx(whole["loss"].item(), rel=1e-10)
        assert_near(first, whole)
        assert all(torch.equal(first[name], second[name]) for name in whole.keys() - {"loss"})


def test_it_is_fp32_under_autocast_and_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    projection = Projection(8, SIZE, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    image_BD, text_BD = normalize(torch.randn(2, 4, 8), dim=-1)

    plain = projection(image_BD, text_BD)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = projection(image_BD, text_BD)

    for one, other in zip(plain, autocast, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one.norm(dim=1), torch.ones(4))


def test_a_fit_finds_the_map_into_the_teachers_space_for_both_modalities() -> None:
    generator = torch.Generator().manual_seed(4)
    rotation_DE = torch.linalg.qr(torch.randn(SIZE, 8, generator=generator)).Q.T
    image_BD, text_BD = normalize(torch.randn(2, 40, 8, generator=generator), dim=-1)
    projection = Projection(8, SIZE, seed=5)

    projection.fit([image_BD, text_BD], [image_BD @ rotation_DE, text_BD @ rotation_DE])

    image_BE, text_BE = projection(image_BD, text_BD)
    torch.testing.assert_close(image_BE, image_BD @ rotation_DE, rtol=0, atol=RIDGE)
    torch.testing.assert_close(text_BE, text_BD @ rotation_DE, rtol=0, atol=RIDGE)
    assert torch.equal(projection.image.weight, projection.text.weight)


def test_its_matrices_decay_and_its_biases_do_not(tmp_path: Path) -> None:
    spec = spec_of("unread", auto(0.5))
    projection = Projection(8, SIZE, seed=0)

    decaying, other = (group["params"] for group in make_optimizer(Clip(TEACHER), spec.optimizer, projection).param_groups)

    assert {id(projection.image.weight), id(projection.text.weight)} <= {id(p) for p in decaying}
    assert {id(projection.image.bias), id(projection.text.bias)} <= {id(p) for p in other}


def teacher_of(embed_dim: int) -> FrozenTeacher:
    torch.manual_seed(8)
    return FrozenTeacher(build_model(TEACHER.model_copy(update={"embed_dim": embed_dim})), 20.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


class TestTraining:
    """The teacher's embeddings have 24 numbers, the student's 16."""

    LENGTH = 24

    def trainer(self, shards: str, objective: dict[str, Any], **changes: Any) -> StageTrainer:
        stage = {"name": "s", "inherit": "none", "student": {"text": {}}, "train": {"steps": self.LENGTH}}
        spec = spec_of(shards, stage, objective=objective, optimizer={"lr": 3e-3, "weight_decay": 0.0}, **changes)
        return trainer_of(spec, taught_by=teacher_of(24))

    @pytest.mark.parametrize("name", TERMS)
    def test_a_term_falls_when_it_is_learned(self, shards: str, tmp_path: Path, name: str) -> None:
        clusters = str(tmp_path / "clusters.safetensors")
        save_clusters(clusters, torch.randn(4, 24, generator=torch.Generator().manual_seed(1)), {})
        trainer = self.trainer(shards, {name: 1, "clusters": clusters}, temperature={"student": 40})
        batch = next(batches_of(trainer))

        values = [trainer.train_step(batch)[0].terms[name] for _ in range(self.LENGTH)]

        assert values[-1] < 0.7 * values[0]

    def test_without_similarities_a_learned_temperature_stays(self, shards: str) -> None:
        trainer = self.trainer(shards, {"feature_mimicry": 1}, temperature={"student": "learned"})
        before = trainer.student.logit_scale.item()

        train(trainer)

        assert trainer.student.logit_scale.item() == before
        assert not trainer.student.logit_scale.requires_grad

    def test_a_stage_of_the_same_size_has_none(self, shards: str) -> None:
        stage = {"name": "s", "inherit": "none", "student": {"text": {}}, "train": {"steps": 1}}

        assert trainer_of(spec_of(shards, stage, objective={"feature_mimicry": 1})).learner.projection is None
        assert self.trainer(shards, {"affinity": 1}).learner.projection is None
        assert self.trainer(shards, {"feature_mimicry": 1}).learner.projection is not None

    def test_a_student_that_is_cut_by_calibration_pairs_starts_with_a_fit(self, shards: str) -> None:
        stage = {"name": "s", "student": {"embed_dim": 12, "text": {}}, "train": {"steps": 1}}
        first: list[float] = []

        def keep(result: StepResult) -> None:
            first.append(result.terms["feature_mimicry"])

        fits, starts_at_random = (calibrated_trainer(spec_of(shards, stage)) for _ in range(2))
        starts_at_random._calibration = None
        for trainer in (fits, starts_at_random):
            train(trainer, progress=keep)

        fitted, random = first[0], first[1]
        assert fitted < 0.2 * random

    def test_a_contrastive_stage_does_not_run_the_teacher(self, shards: str) -> None:
        assert not self.trainer(shards, {"contrastive": 1}).teachers
        assert self.trainer(shards, {"affinity": 1}).teachers


def interrupted_spec(shards: str, every_steps: int) -> JobSpec:
    objective = {"affinity": 1, "feature_mimicry": 100, "interactive_contrastive": 1}
    return spec_of(shards, auto(0.5), objective=objective, checkpoint={"every_steps": every_steps, "keep": 1})


@pytest.fixture(scope="module")
def uninterrupted(shards: str) -> StageTrainer:
    return train(trainer_of(interrupted_spec(shards, STEPS), taught_by=teacher_of(24)))


class TestResumption:
    @pytest.mark.parametrize(
        "stop", [PRUNE_STEP, *(pytest.param(stop, marks=pytest.mark.long) for stop in (PRUNE_STEP - 6, PRUNE_STEP + 2))]
    )
    def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
        self, uninterrupted: StageTrainer, shards: str, tmp_path: Path, stop: int
    ) -> None:
        store, spec = ArtifactsStore(str(tmp_path)), interrupted_spec(shards, stop)

        def save_and_stop(trainer: StageTrainer) -> None:
            save_checkpoint(store, "stage/a1", trainer.step, trainer.learner.tensors(), trainer.state())
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(trainer_of(spec, taught_by=teacher_of(24)), checkpoint=save_and_stop)
        checkpoint = latest_checkpoint(store, "stage")
        assert checkpoint is not None
        second = trainer_of(spec, taught_by=teacher_of(24))
        fresh = {name: tensor.clone() for name, tensor in second.learner.tensors()["projection"].items()}
        second.restore(checkpoint)
        assert not equal(fresh, dict(second.learner.tensors()["projection"]))
        train(second)

        assert second.learner.layout == uninterrupted.learner.layout
        assert {"projection.image.weight", "model.logit_scale"} <= all_tensors(second).keys()
        assert equal(all_tensors(uninterrupted), all_tensors(second))

    def test_the_student_has_no_part_of_it(self, uninterrupted: StageTrainer) -> None:
        names = uninterrupted.learner.folded_model()[0].state_dict().keys()

        assert not [name for name in names if "projection" in name and name != "text_projection"]

    def test_every_stage_starts_a_new_one(self, uninterrupted: StageTrainer, shards: str) -> None:
        spec = spec_of(shards, auto(0.5), auto(0.75, name="more"), objective={"feature_mimicry": 1})

        second = trainer_of(spec, 1, uninterrupted, taught_by=teacher_of(24))

        trained, fresh = uninterrupted.learner.projection, second.learner.projection
        assert trained is not None
        assert fresh is not None
        assert equal(dict(fresh.state_dict()), dict(Projection(16, 24, seed=1).state_dict()))
        assert not torch.equal(trained.image.weight, fresh.image.weight)

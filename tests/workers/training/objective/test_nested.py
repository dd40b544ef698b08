"""Nested embeddings: terms at every size, on the principal axes of the teacher's embeddings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import Objective
from tinyclip_workers.training.checkpoints import latest_checkpoint, save_checkpoint
from tinyclip_workers.training.objective.losses import SigmoidScale, StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.nested import Nesting, nested_terms, principal_axes
from tinyclip_workers.training.objective.projection import Projection
from tinyclip_workers.training.objective.terms import TERMS, EmbeddedBatch, objective_terms
from tinyclip_workers.training.trainer import StageTrainer
from torch import Tensor
from torch.nn.functional import normalize, pad

from tests.workers.auto_stages import all_tensors, equal, spec_of, train, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

N, E, K = 6, 8, 3
SIZES = (2, 5, E)
EVERY_TERM = dict.fromkeys(TERMS, 1.0)


def unit(seed: int, rows: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, size, generator=generator, dtype=torch.float64), dim=-1)


AXES = torch.linalg.qr(torch.randn(E, E, generator=torch.Generator().manual_seed(7), dtype=torch.float64)).Q


def batch(rows: slice = slice(None)) -> EmbeddedBatch:
    image, text = unit(1, N, E)[rows].requires_grad_(), unit(2, N, E)[rows].requires_grad_()
    own = StudentEmbeddings(image, text, torch.tensor(7.0, dtype=torch.float64, requires_grad=True))
    theirs = TeacherEmbeddings(unit(3, N, E)[rows], unit(4, N, E)[rows], 11.0, sigmoid=SigmoidScale(9.0, -3.0))
    return EmbeddedBatch(own, [theirs], unit(5, K, E))


def of_size(size: int) -> dict[str, Tensor]:
    """Return the terms of embeddings that are cut by hand; affinities are those of the whole teacher."""
    whole = batch()
    [theirs] = whole.teachers

    def cut(x: Tensor) -> Tensor:
        return normalize((x @ AXES)[:, :size], dim=-1)

    own = StudentEmbeddings(cut(whole.student.image_BD), cut(whole.student.text_BD), 7.0)
    shorter = replace(theirs, image_BE=cut(theirs.image_BE), text_BE=cut(theirs.text_BE))
    assert whole.clusters_KE is not None
    terms = objective_terms(EVERY_TERM, EmbeddedBatch(own, [shorter], cut(whole.clusters_KE)))
    return terms | objective_terms({"affinity": 1.0, "sigmoid_affinity": 1.0}, EmbeddedBatch(own, [theirs]))


def terms_and_gradients(rank: int, world_size: int) -> dict[str, Tensor]:
    share = N // world_size
    own = batch(slice(rank * share, (rank + 1) * share))
    terms = nested_terms(EVERY_TERM, own, Nesting(SIZES, AXES))
    torch.stack([*terms.values()]).sum().backward()
    image, text = own.student.image_BD.grad, own.student.text_BD.grad
    assert image is not None
    assert text is not None
    return {**{name: term.detach() for name, term in terms.items()}, "/image": image, "/text": text}


class TestTerms:
    def test_they_are_means_over_the_sizes(self) -> None:
        found, by_size = terms_and_gradients(0, 1), [of_size(size) for size in SIZES]

        for name in TERMS:
            assert found[name].item() == pytest.approx(sum(terms[name].item() for terms in by_size) / len(SIZES), rel=1e-10)

    def test_two_workers_are_the_full_batch(self) -> None:
        full, by_rank = terms_and_gradients(0, 1), on_workers(2, terms_and_gradients, 2)

        for name in TERMS:
            assert torch.stack([found[name] for found in by_rank]).mean().item() == pytest.approx(full[name].item(), rel=1e-10)
        for rows in ("/image", "/text"):
            torch.testing.assert_close(torch.cat([found[rows] for found in by_rank]) / 2, full[rows], rtol=1e-9, atol=1e-12)

    def test_without_sizes_they_are_those_of_whole_embeddings(self) -> None:
        found, wanted = nested_terms(EVERY_TERM, batch(), Nesting()), objective_terms(EVERY_TERM, batch())

        assert found == wanted

    def test_without_a_teacher_contrast_is_nested(self) -> None:
        own = batch().student

        found = nested_terms({"contrastive": 1.0}, EmbeddedBatch(own), Nesting(SIZES))["contrastive"]

        cut = [
            StudentEmbeddings(normalize(own.image_BD[:, :size], dim=-1), normalize(own.text_BD[:, :size], dim=-1), 7.0)
            for size in SIZES
        ]
        wanted = [objective_terms({"contrastive": 1.0}, EmbeddedBatch(shorter))["contrastive"].item() for shorter in cut]
        assert found.item() == pytest.approx(sum(wanted) / len(wanted))

    def test_of_another_size_than_the_teachers_they_are_compared_with_all_of_it(self) -> None:
        projection, own, theirs = Projection(E, 12, seed=0, sizes=SIZES).double(), batch().student, unit(8, N, 12)
        image_BE, text_BE = projection(own.image_BD, own.text_BD)
        student = StudentEmbeddings(own.image_BD, own.text_BD, 7.0, image_BE=image_BE, text_BE=text_BE)
        teacher = TeacherEmbeddings(theirs, theirs, 11.0)

        found = nested_terms({"feature_mimicry": 1.0}, EmbeddedBatch(student, [teacher]), Nesting(SIZES))["feature_mimicry"]

        wanted = []
        for size in SIZES:
            image, text = (pad(normalize(x[:, :size], dim=-1), (0, E - size)) for x in (own.image_BD, own.text_BD))
            image_BE, text_BE = normalize(projection.image(image), dim=-1), normalize(projection.text(text), dim=-1)
            shorter = StudentEmbeddings(image, text, 7.0, image_BE=image_BE, text_BE=text_BE)
            wanted.append(objective_terms({"feature_mimicry": 1.0}, EmbeddedBatch(shorter, [teacher]))["feature_mimicry"].item())
        assert found.item() == pytest.approx(sum(wanted) / len(wanted))


def test_axes_are_orthonormal_and_the_largest_is_the_first() -> None:
    spread = torch.tensor([0.1, 3.0, 1.0, 0.3])
    parts = [torch.randn(200, 4, generator=torch.Generator().manual_seed(i)) * spread for i in range(2)]

    axes_EE = principal_axes(parts)

    torch.testing.assert_close(axes_EE.T @ axes_EE, torch.eye(4), atol=1e-6, rtol=0)
    assert axes_EE.abs().argmax(dim=0).tolist() == [1, 2, 3, 0]


class TestSizes:
    def test_the_whole_embedding_is_added(self) -> None:
        assert Objective(affinity=1, embedding_sizes=[2, 4]).nested_sizes(8) == [2, 4, 8]
        assert Objective(affinity=1, embedding_sizes=[2, 8]).nested_sizes(8) == [2, 8]
        assert Objective(affinity=1).nested_sizes(8) == []

    @pytest.mark.parametrize("sizes", [[4, 2], [2, 2], [0, 2]])
    def test_they_increase_from_1(self, sizes: list[int]) -> None:
        with pytest.raises(ValueError, match="embedding_sizes"):
            Objective(affinity=1, embedding_sizes=sizes)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    return write_shards(tmp_path_factory.mktemp("shapes"))


class TestTraining:
    def trainer(self, shards: str, objective: dict[str, Any]) -> StageTrainer:
        stage = {"name": "s", "student": {"text": {}}, "train": {"steps": 4}}
        trainer = trainer_of(spec_of(shards, stage, objective=objective, temperature={"student": 40}))
        if trainer.stage.embedding_sizes:
            trainer.nesting = Nesting(trainer.stage.embedding_sizes, torch.linalg.qr(torch.randn(16, 16)).Q)
        return trainer

    def test_whole_similarities_do_not_depend_on_the_axes(self, shards: str) -> None:
        objective = {"affinity": 1, "feature_mimicry": 1}

        plain, rotated = (train(self.trainer(shards, {**objective, "embedding_sizes": s})) for s in ([], [16]))

        for name, tensor in plain.student.state_dict().items():
            torch.testing.assert_close(rotated.student.state_dict()[name], tensor, atol=2e-4, rtol=0, msg=name)

    def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(self, shards: str, tmp_path: Path) -> None:
        objective = {"affinity": 1, "feature_mimicry": 1, "embedding_sizes": [4, 8]}
        whole, store = self.trainer(shards, objective), ArtifactsStore(str(tmp_path))
        whole.spec.checkpoint.every_steps = 2

        def save(trainer: StageTrainer) -> None:
            if trainer.step == 2:
                save_checkpoint(store, "stage/a1", trainer.step, trainer.tensors(), trainer.state())

        train(whole, checkpoint=save)
        second, checkpoint = self.trainer(shards, objective), latest_checkpoint(store, "stage")
        assert checkpoint is not None
        second.restore(checkpoint)
        train(second)

        assert whole.nesting.axes_EE is not None
        assert second.nesting.axes_EE is not None
        assert torch.equal(whole.nesting.axes_EE, second.nesting.axes_EE)
        assert equal(all_tensors(whole), all_tensors(second))

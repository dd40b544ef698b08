"""Every published term against a plain computation of it, in one process and in two."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tinyclip.schemas.spec import Objective
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms, weighted_sum
from torch import Tensor
from torch.nn.functional import normalize

from tests.workers.plain_objectives import TERMS, Pair, affinity, gradient
from tests.workers.processes import on_workers

N, E, K = 6, 4, 3
SCALE, TEACHER_SCALE = 7.0, 11.0


def unit(seed: int, rows: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, size, generator=generator, dtype=torch.float64), dim=-1)


def student(rows: slice = slice(None)) -> StudentEmbeddings:
    image, text = unit(1, N, E)[rows].requires_grad_(), unit(2, N, E)[rows].requires_grad_()
    return StudentEmbeddings(image, text, torch.tensor(SCALE, dtype=torch.float64, requires_grad=True))


def teacher(rows: slice = slice(None)) -> TeacherEmbeddings:
    return TeacherEmbeddings(unit(3, N, E)[rows], unit(4, N, E)[rows], TEACHER_SCALE)


def numpy_of(image: Tensor, text: Tensor) -> Pair:
    return Pair(image.detach().numpy(), text.detach().numpy())


def student_pair() -> Pair:
    return numpy_of(*student().in_teacher_space())


def teacher_pair() -> Pair:
    return numpy_of(teacher().image_BE, teacher().text_BE)


def term(name: str, own: StudentEmbeddings, *teachers: TeacherEmbeddings, clusters_KE: Tensor | None = None) -> Tensor:
    return objective_terms({name: 1.0}, EmbeddedBatch(own, teachers, clusters_KE))[name]


def terms_and_gradients(rank: int, world_size: int) -> dict[str, Tensor]:
    """Compute every term on this worker's rows, and its gradients."""
    found: dict[str, Tensor] = {}
    share = N // world_size
    rows = slice(rank * share, (rank + 1) * share)
    for name in TERMS:
        own = student(rows)
        loss = term(name, own, teacher(rows), clusters_KE=unit(5, K, E))
        loss.backward()
        assert isinstance(own.scale, Tensor)
        found[name] = loss.detach()
        found[f"{name}/image"], found[f"{name}/text"] = own.image_BD.grad, own.text_BD.grad  # type: ignore[assignment]
        found[f"{name}/scale"] = torch.zeros(()) if own.scale.grad is None else own.scale.grad
    return found


@pytest.mark.parametrize("name", TERMS)
def test_a_term_and_its_gradient_are_what_the_formula_says(name: str) -> None:
    found = terms_and_gradients(0, 1)
    arguments = student_pair(), teacher_pair(), SCALE, unit(5, K, E).numpy()

    wanted = TERMS[name](arguments[0], *arguments)
    image, text = gradient(TERMS[name], *arguments)

    assert found[name].item() == pytest.approx(wanted, rel=1e-10)
    assert np.abs(found[f"{name}/image"].numpy() - image).max() < 1e-7
    assert np.abs(found[f"{name}/text"].numpy() - text).max() < 1e-7
    assert np.abs(image).max() > 1e-3


def test_the_mean_over_two_workers_is_the_full_batch() -> None:
    full, by_rank = terms_and_gradients(0, 1), on_workers(2, terms_and_gradients, 2)

    for name in TERMS:
        for scalar in (name, f"{name}/scale"):
            mean = torch.stack([found[scalar] for found in by_rank]).mean()
            torch.testing.assert_close(mean, full[scalar], rtol=1e-10, atol=1e-12, check_dtype=False)
        for rows in (f"{name}/image", f"{name}/text"):
            torch.testing.assert_close(torch.cat([found[rows] for found in by_rank]) / 2, full[rows], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TERMS)
def test_terms_stay_fp32_under_autocast(name: str) -> None:
    own = StudentEmbeddings(unit(1, N, E).float(), unit(2, N, E).float(), 50.0)
    theirs = TeacherEmbeddings(unit(3, N, E).float(), unit(4, N, E).float(), 50.0)
    clusters_KE = unit(5, K, E).float()
    plain = term(name, own, theirs, clusters_KE=clusters_KE)

    with torch.autocast("cpu", torch.bfloat16):
        autocast = term(name, own, theirs, clusters_KE=clusters_KE)

    assert autocast.dtype == torch.float32
    assert torch.equal(autocast, plain)


def test_the_projected_embeddings_are_compared_where_there_are_any() -> None:
    own, theirs = student(), teacher()
    other = StudentEmbeddings(unit(8, N, 9), unit(9, N, 9), SCALE, 0.0, own.image_BD, own.text_BD)

    for name in TERMS:
        wanted = term(name, own, theirs, clusters_KE=unit(5, K, E))
        assert term(name, other, theirs, clusters_KE=unit(5, K, E)) == wanted


class TestInheritanceAndExploration:
    """One half of the dimensions follows the teacher, the other half avoids it."""

    def pair(self, first: float, second: float) -> StudentEmbeddings:
        """Return the teacher's embeddings with their halves multiplied."""
        theirs, factors = teacher(), torch.tensor([first] * (E // 2) + [second] * (E - E // 2), dtype=torch.float64)
        return StudentEmbeddings(normalize(theirs.image_BE * factors), normalize(theirs.text_BE * factors), SCALE)

    @pytest.mark.parametrize(
        ("first", "second", "inheritance", "exploration"),
        [(1, 1, 0, 2), (3, 1, 0, 2), (1, -1, 0, 2), (-1, 1, 4, 2), (1, 0, 0, 0)],
    )
    def test_values_are_those_of_the_halves_directions(
        self, first: float, second: float, inheritance: float, exploration: float
    ) -> None:
        own = self.pair(first, second)

        assert term("inheritance", own, teacher()).item() == pytest.approx(inheritance, abs=1e-9)
        assert term("exploration", own, teacher()).item() == pytest.approx(exploration, abs=1e-9)

    @pytest.mark.parametrize(("name", "untouched"), [("inheritance", slice(E // 2, None)), ("exploration", slice(0, E // 2))])
    def test_each_term_moves_its_own_half_only(self, name: str, untouched: slice) -> None:
        own = student()

        term(name, own, teacher()).backward()

        for gradient_BE in (own.image_BD.grad, own.text_BD.grad):
            assert gradient_BE is not None
            assert gradient_BE.abs().max() > 1e-3
            assert not gradient_BE[:, untouched].any()

    def test_they_do_not_use_the_logit_scale(self) -> None:
        assert not Objective(affinity=0, inheritance=1, exploration=1).uses_logit_scale()
        assert Objective(affinity=1, inheritance=1, exploration=1).uses_logit_scale()


def test_the_objective_is_the_weighted_sum() -> None:
    weights = Objective(affinity=0, contrastive=0.5, feature_mimicry=2000, cross_relational=3).weights()

    terms = objective_terms(weights, EmbeddedBatch(student(), [teacher()]))

    assert terms.keys() == {"contrastive", "feature_mimicry", "cross_relational"}
    total = 0.5 * terms["contrastive"] + 2000 * terms["feature_mimicry"] + 3 * terms["cross_relational"]
    torch.testing.assert_close(weighted_sum(weights, terms), total)


@pytest.mark.parametrize("name", ["affinity", *TERMS])
def test_a_term_without_a_teacher_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{name} is positive but there is no teacher"):
        term(name, student())


def test_clusters_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"name their file in objective\.clusters"):
        term("cluster_instance", student(), teacher())


class TestSeveralTeachers:
    WEIGHTS = (0.5, 0.2, 0.3)

    def teachers(self, rows: slice = slice(None)) -> list[TeacherEmbeddings]:
        """Return three teachers with embeddings of 4, 7 and 3 numbers, each with its own scale."""
        others = [
            TeacherEmbeddings(unit(10 + i, N, size)[rows], unit(20 + i, N, size)[rows], scale, weight)
            for i, (size, scale, weight) in enumerate([(7, 5.0, self.WEIGHTS[1]), (3, 20.0, self.WEIGHTS[2])])
        ]
        return [replace(teacher(rows), weight=self.WEIGHTS[0]), *others]

    def affinity(self, rank: int, world_size: int) -> dict[str, Tensor]:
        share = N // world_size
        rows = slice(rank * share, (rank + 1) * share)
        own = student(rows)
        loss = term("affinity", own, *self.teachers(rows))
        loss.backward()
        assert own.image_BD.grad is not None
        return {"loss": loss.detach(), "image": own.image_BD.grad}

    def test_their_affinities_are_averaged(self) -> None:
        teachers = [(t.weight, numpy_of(t.image_BE, t.text_BE), float(t.scale)) for t in self.teachers()]

        assert self.affinity(0, 1)["loss"].item() == pytest.approx(affinity(student_pair(), teachers, SCALE), rel=1e-10)

    def test_one_of_three_is_not_the_three(self) -> None:
        alone = term("affinity", student(), teacher()).item()

        assert alone == pytest.approx(affinity(student_pair(), [(1.0, teacher_pair(), TEACHER_SCALE)], SCALE), rel=1e-10)
        assert abs(alone - self.affinity(0, 1)["loss"].item()) > 1e-3

    def test_two_workers_are_the_full_batch(self) -> None:
        full, by_rank = self.affinity(0, 1), on_workers(2, self.affinity, 2)

        assert torch.stack([found["loss"] for found in by_rank]).mean().item() == pytest.approx(full["loss"].item(), rel=1e-10)
        torch.testing.assert_close(torch.cat([found["image"] for found in by_rank]) / 2, full["image"], rtol=1e-9, atol=1e-12)

    def test_other_terms_use_the_first(self) -> None:
        for name in TERMS:
            wanted = term(name, student(), teacher(), clusters_KE=unit(5, K, E))
            assert term(name, student(), *self.teachers(), clusters_KE=unit(5, K, E)) == wanted

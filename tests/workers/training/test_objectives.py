"""Every published term against its plain re-computation, in one process and in two."""

import numpy as np
import pytest
import torch
from tinyclip.schemas.spec import Objective
from tinyclip_workers.training.losses import Embeddings, Taught
from tinyclip_workers.training.objectives import objective_terms, weighted_sum
from torch import Tensor
from torch.nn.functional import normalize

from tests.workers.plain_objectives import TERMS, Pair, affinity, gradient
from tests.workers.processes import on_workers

N, E, K = 6, 4, 3
SCALE, TEACHER_SCALE = 7.0, 11.0


def unit(seed: int, rows: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, size, generator=generator, dtype=torch.float64), dim=-1)


def student(rows: slice = slice(None)) -> Embeddings:
    image, text = unit(1, N, E)[rows].requires_grad_(), unit(2, N, E)[rows].requires_grad_()
    return Embeddings(image, text, torch.tensor(SCALE, dtype=torch.float64, requires_grad=True))


def teacher(rows: slice = slice(None)) -> Embeddings:
    return Embeddings(unit(3, N, E)[rows], unit(4, N, E)[rows], TEACHER_SCALE)


def numpy_of(embeddings: Embeddings) -> Pair:
    return Pair(embeddings.image_BD.detach().numpy(), embeddings.text_BD.detach().numpy())


def terms_and_gradients(rank: int, world_size: int) -> dict[str, Tensor]:
    """Every term on this worker's rows, and its gradient to the student's embeddings and scale."""
    found: dict[str, Tensor] = {}
    share = N // world_size
    rows = slice(rank * share, (rank + 1) * share)
    for name in TERMS:
        own = student(rows)
        loss = objective_terms({name: 1.0}, own, teacher(rows), unit(5, K, E))[name]
        loss.backward()
        assert isinstance(own.scale, Tensor)
        found[name] = loss.detach()
        found[f"{name}/image"], found[f"{name}/text"] = own.image_BD.grad, own.text_BD.grad  # type: ignore[assignment]
        found[f"{name}/scale"] = torch.zeros(()) if own.scale.grad is None else own.scale.grad
    return found


@pytest.mark.parametrize("name", TERMS)
def test_a_term_and_its_gradient_are_what_the_formula_says(name: str) -> None:
    found = terms_and_gradients(0, 1)
    arguments = numpy_of(student()), numpy_of(teacher()), SCALE, unit(5, K, E).numpy()

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
    own, theirs = (Embeddings(e.image_BD.detach().float(), e.text_BD.detach().float(), 50.0) for e in (student(), teacher()))
    clusters = unit(5, K, E).float()
    plain = objective_terms({name: 1.0}, own, theirs, clusters)[name]

    with torch.autocast("cpu", torch.bfloat16):
        autocast = objective_terms({name: 1.0}, own, theirs, clusters)[name]

    assert autocast.dtype == torch.float32
    assert torch.equal(autocast, plain)


def test_the_projected_embeddings_are_compared_where_there_are_any() -> None:
    own, theirs = student(), teacher()
    other = Embeddings(unit(8, N, 9), unit(9, N, 9), SCALE, own.image_BD, own.text_BD)

    for name in TERMS:
        wanted = objective_terms({name: 1.0}, own, theirs, unit(5, K, E))[name]
        assert objective_terms({name: 1.0}, other, theirs, unit(5, K, E))[name] == wanted


def test_the_objective_is_the_weighted_sum() -> None:
    weights = Objective(affinity=0, contrastive=0.5, feature_mimicry=2000, cross_relational=3).weights()

    terms = objective_terms(weights, student(), teacher())

    assert terms.keys() == {"contrastive", "feature_mimicry", "cross_relational"}
    total = 0.5 * terms["contrastive"] + 2000 * terms["feature_mimicry"] + 3 * terms["cross_relational"]
    torch.testing.assert_close(weighted_sum(weights, terms), total)


@pytest.mark.parametrize("name", ["affinity", *TERMS])
def test_a_term_without_what_it_needs_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{name} is positive but there is no teacher"):
        objective_terms({name: 1.0}, student(), None)


def test_clusters_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"name their file in objective\.clusters"):
        objective_terms({"cluster_instance": 1.0}, student(), teacher())


class TestSeveralTeachers:
    SHARES = (0.5, 0.2, 0.3)

    def ensemble(self, rows: slice = slice(None)) -> Taught:
        """Three teachers with embeddings of 4, 7 and 3 numbers, and scales of their own."""
        others = [
            Taught(unit(10 + i, N, size)[rows], unit(20 + i, N, size)[rows], scale, share=share)
            for i, (size, scale, share) in enumerate([(7, 5.0, self.SHARES[1]), (3, 20.0, self.SHARES[2])])
        ]
        first = teacher(rows)
        return Taught(first.image_BD, first.text_BD, first.scale, share=self.SHARES[0], others=tuple(others))

    def affinity(self, rank: int, world_size: int) -> dict[str, Tensor]:
        share = N // world_size
        rows = slice(rank * share, (rank + 1) * share)
        own = student(rows)
        loss = objective_terms({"affinity": 1.0}, own, self.ensemble(rows))["affinity"]
        loss.backward()
        assert own.image_BD.grad is not None
        return {"loss": loss.detach(), "image": own.image_BD.grad}

    def test_their_affinities_are_averaged(self) -> None:
        several = self.ensemble()
        said = [(e.share, numpy_of(e), float(e.scale)) for e in (several, *several.others)]

        assert self.affinity(0, 1)["loss"].item() == pytest.approx(affinity(numpy_of(student()), said, SCALE), rel=1e-10)

    def test_one_of_three_is_not_the_three(self) -> None:
        alone = objective_terms({"affinity": 1.0}, student(), teacher())["affinity"].item()

        said = [(1.0, numpy_of(teacher()), TEACHER_SCALE)]
        assert alone == pytest.approx(affinity(numpy_of(student()), said, SCALE), rel=1e-10)
        assert abs(alone - self.affinity(0, 1)["loss"].item()) > 1e-3

    def test_two_workers_are_the_full_batch(self) -> None:
        full, by_rank = self.affinity(0, 1), on_workers(2, self.affinity, 2)

        assert torch.stack([found["loss"] for found in by_rank]).mean().item() == pytest.approx(full["loss"].item(), rel=1e-10)
        torch.testing.assert_close(torch.cat([found["image"] for found in by_rank]) / 2, full["image"], rtol=1e-9, atol=1e-12)

    def test_other_terms_have_the_first(self) -> None:
        for name in TERMS:
            wanted = objective_terms({name: 1.0}, student(), teacher(), unit(5, K, E))[name]
            assert objective_terms({name: 1.0}, student(), self.ensemble(), unit(5, K, E))[name] == wanted

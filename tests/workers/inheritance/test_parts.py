"""Least squares and shapes against direct calculations, and the same on a GPU."""

import numpy as np
import pytest
import torch
from tinyclip_workers.inheritance.importance import unit_importance
from tinyclip_workers.inheritance.reconstruction import LeastSquares, input_for
from tinyclip_workers.inheritance.shape import masks_of_size
from tinyclip_workers.inheritance.streams import Pairs
from tinyclip_workers.inheritance.students import inherit_by_importance
from tinyclip_workers.model.masked import size_of
from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.sparsity import TowerCost, kept_by

from tests.workers.inheritance.towers import (
    calibration_of,
    distance,
    model_of,
    random_clip,
    random_pairs,
    resnet_layout,
    vit_layout,
)

SMALLER = vit_layout(width=24, layers=2, heads=3, mlp=32)
ROWS, INPUTS, OUTPUTS = 200, 6, 3


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, INPUTS, generator=generator) + 2
    targets = inputs @ torch.randn(INPUTS, OUTPUTS, generator=generator) + torch.randn(ROWS, OUTPUTS, generator=generator)
    return inputs, targets, torch.randn(OUTPUTS, INPUTS, generator=generator)


class TestLeastSquares:
    @pytest.mark.parametrize("ridge", [0.01, 0.5])
    def test_the_solution_minimises_what_is_stated(
        self, rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor], ridge: float
    ) -> None:
        """Against numpy's solution of the rows with the ridge as further rows."""
        inputs, targets, weight = rows
        sums = LeastSquares(INPUTS, OUTPUTS)
        for part in range(0, ROWS, 50):
            sums.add(inputs[part : part + 50], targets[part : part + 50])

        found, bias = sums.solve(weight, ridge)

        x, y, w = (tensor.double().numpy() for tensor in (inputs, targets, weight))
        centred = x - x.mean(0)
        damping = np.sqrt(ridge * (centred**2).sum(0).mean()) * np.eye(INPUTS)
        residual = y - y.mean(0) - centred @ w.T
        change = np.linalg.lstsq(np.vstack([centred, damping]), np.vstack([residual, np.zeros((INPUTS, OUTPUTS))]))[0].T
        np.testing.assert_allclose(found.numpy(), w + change, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(bias.numpy(), y.mean(0) - (w + change) @ x.mean(0), rtol=1e-4, atol=1e-4)

    def test_moments_are_those_of_the_outputs(self, rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        inputs, targets, weight = rows
        sums = LeastSquares(INPUTS, OUTPUTS)
        sums.add(inputs, targets)

        mean, variance = sums.moments(weight)

        outputs = (inputs @ weight.T).double()
        torch.testing.assert_close(mean, outputs.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(variance, outputs.var(0, correction=0), rtol=1e-4, atol=1e-4)

    def test_a_constant_is_not_made_of_directions_that_are_hardly_mapped(self) -> None:
        matrix = torch.diag(torch.tensor([1.0, 0.5, 1e-4], dtype=torch.float64))

        found = input_for(matrix, torch.ones(3, dtype=torch.float64))

        torch.testing.assert_close(found, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))


class TestShape:
    @pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
    def test_the_target_is_met_and_units_of_higher_score_per_parameter_are_kept(self, sparsity: float) -> None:
        clip = random_clip(vit_layout())
        scores = unit_importance(clip, random_pairs(32))
        sizes: dict[Tower, TowerCost] = {"image": size_of(clip.layout.image), "text": size_of(clip.layout.text)}

        masks = masks_of_size(scores, sizes, sparsity)

        kept = 0.0
        for tower, mask in masks.items():
            kept += sizes[tower].cost(kept_by(mask))
            for row, score in zip(mask.leaves(), scores[tower].leaves(), strict=True):
                if 0 < row.sum() < len(row):
                    assert score[row == 1].min() >= score[row == 0].max()
        removed = 1 - kept / sum(size.prunable for size in sizes.values())
        assert sparsity <= removed < sparsity + 0.05

    def test_a_tower_keeps_a_channel_however_little_it_matters(self) -> None:
        layout = vit_layout()
        sizes: dict[Tower, TowerCost] = {"image": size_of(layout.image), "text": size_of(layout.text)}
        scores: dict[Tower, Mask] = {"image": _scores(layout.image.width, 1.0), "text": _scores(layout.text.width, 1e-9)}

        masks = masks_of_size(scores, sizes, 0.5)

        assert masks["text"].hidden.sum() >= 1


def _scores(width: int, value: float) -> Mask:
    return Mask(torch.full((width,), value), (torch.full((4,), value),) * 3, (torch.full((48,), value),) * 3)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_gpu_cuts_almost_the_same_student(kind: str) -> None:
    parent, student = (vit_layout(), SMALLER) if kind == "vit" else (resnet_layout(), resnet_layout(6))
    clip, pairs, on_gpu = random_clip(parent), random_pairs(), random_clip(parent).to("cuda")
    moved = Pairs(pairs.images_NCHW.to("cuda"), pairs.tokens_NT.to("cuda"))

    wanted = model_of(inherit_by_importance(student, clip, calibration_of(clip, pairs)), student)
    state = inherit_by_importance(student, on_gpu, calibration_of(on_gpu, moved))

    found = model_of({name: tensor.cpu() for name, tensor in state.items()}, student)
    assert distance(found, clip, pairs) == pytest.approx(distance(wanted, clip, pairs), rel=0.1)

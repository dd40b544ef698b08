"""The expected size of a masked student, and the penalty for exceeding the target size (METHOD section 3.4).

Sizes count what masks can remove: the weights and biases of attention and MLP, not embeddings, LayerNorms or projections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from tinyclip_workers.model.masks import Mask, TowerMasks

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class TowerSize:
    """The cost of the unpruned tower's parts, to which sparsity is always relative."""

    width: int
    heads: tuple[int, ...]
    intermediate: tuple[int, ...]
    head_width: int

    @property
    def parameters_per_head(self) -> int:
        """Parameters of q, k, v and output projection of a head, with biases, over all channels."""
        return 4 * self.head_width * (self.width + 1)

    @property
    def prunable(self) -> int:
        """The number of parameters that masks could remove."""
        mlp = sum(2 * self.width * units + self.width + units for units in self.intermediate)
        return sum(self.heads) * self.parameters_per_head + mlp

    def expected(self, scores: Mask) -> Tensor:
        """Return the expected number of parameters kept (scalar, differentiable).

        Every head or unit costs in proportion to the channels, so the sum over all pairs is a product of sums.
        """
        heads, units = torch.cat(scores.heads).sum(), torch.cat(scores.intermediate).sum()
        return self.cost(scores.hidden.sum(), heads, units)

    def cost(self, channels: Number, heads: Number, units: Number) -> Number:
        """Count the parameters of a number of channels, heads and MLP units of all layers, as the constraint does."""
        return channels * heads * (self.parameters_per_head / self.width) + 2 * channels * units


@dataclass(frozen=True)
class Constraint:
    """The target sparsity, which grows linearly from `start` to `target` over `warmup` steps."""

    start: float
    target: float
    warmup: int

    def at(self, step: int) -> float:
        if self.warmup == 0:
            return self.target
        return self.start + (self.target - self.start) * min(1.0, step / self.warmup)


@dataclass(frozen=True)
class SparsityPenalty:
    """The Lagrangian term to add to the loss, and the sparsities that it was computed from."""

    loss: Tensor
    expected_sparsity: Tensor
    """Scalar, without gradient."""
    target_sparsity: float


Towers = Sequence[tuple[TowerMasks, TowerSize]]


def joint_lagrangian(towers: Towers, constraint: Constraint, step: int) -> SparsityPenalty:
    """Constrain the towers together, so that they trade size with each other; for a single tower too."""
    expected = torch.stack([size.expected(masks.scores()) for masks, size in towers]).sum()
    sparsity = 1 - expected / sum(size.prunable for _, size in towers)
    lambda_1 = torch.stack([masks.lambda_1 for masks, _ in towers]).mean()
    lambda_2 = torch.stack([masks.lambda_2 for masks, _ in towers]).mean()
    # One-sided: a student smaller than the target has no penalty.
    gap = (constraint.at(step) - sparsity).clamp(min=0)
    return SparsityPenalty(lambda_1 * gap + lambda_2 * gap.square(), sparsity.detach(), constraint.at(step))


def separate_lagrangian(towers: Towers, constraint: Constraint, step: int) -> SparsityPenalty:
    """Constrain each tower; the expected sparsity is that of all together."""
    penalties = [joint_lagrangian([tower], constraint, step) for tower in towers]
    prunable = [size.prunable for _, size in towers]
    removed = [penalty.expected_sparsity * count for penalty, count in zip(penalties, prunable, strict=True)]
    sparsity = torch.stack(removed).sum() / sum(prunable)
    return SparsityPenalty(torch.stack([penalty.loss for penalty in penalties]).sum(), sparsity, constraint.at(step))

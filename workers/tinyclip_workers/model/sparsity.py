"""The expected cost of a masked student, and the penalty for exceeding the target (METHOD sections 3.4 and 16).

Without a target in units of cost, the cost is the parameters that masks can remove: the weights and biases of attention and MLP,
not embeddings, LayerNorms or projections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from tinyclip_workers.model.masks import Mask, TowerMasks

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Kept(Generic[Number]):
    """The numbers of units of a tower, over all of its blocks; expected ones are scalars with a gradient."""

    channels: Number
    heads: Number
    units: Number
    attentions: Number
    """Blocks with a head."""
    mlps: Number
    """Blocks with an MLP unit."""
    blocks: Number
    """Blocks with either."""


def kept_by(mask: Mask) -> Kept[float]:
    """Count the units of non-zero factor."""
    heads, units = ([int(row.count_nonzero()) for row in rows] for rows in (mask.heads, mask.intermediate))
    return kept_in(int(mask.hidden.count_nonzero()), heads, units)


def kept_in(width: int, heads: Sequence[int], intermediate: Sequence[int]) -> Kept[float]:
    """Count the units of a layout."""
    attentions, mlps = (float(sum(1 for count in counts if count)) for counts in (heads, intermediate))
    either = sum(1 for block in zip(heads, intermediate, strict=True) if any(block))
    return Kept(float(width), float(sum(heads)), float(sum(intermediate)), attentions, mlps, float(either))


class PerChannel(NamedTuple):
    """The cost of a part: so much, and so much more for each channel of the tower."""

    fixed: float = 0.0
    channel: float = 0.0


NOTHING = PerChannel()


@dataclass(frozen=True)
class TowerCost:
    """The cost of a transformer tower as a function of its units: a sum over parts.

    cost = channel * channels + head(channels) * heads + unit(channels) * units + attention(channels) * (blocks with a head)
    + mlp(channels) * (blocks with a unit) + block(channels) * (blocks with either)
    """

    width: int
    heads: tuple[int, ...]
    intermediate: tuple[int, ...]
    head: PerChannel
    unit: PerChannel
    channel: float = 0.0
    """Of embeddings, LayerNorms, projections and all else that has no heads or units."""
    attention: PerChannel = NOTHING
    mlp: PerChannel = NOTHING
    block: PerChannel = NOTHING
    removable: float | None = None
    """The cost that sparsity is a share of; None: that of the whole tower, as `cost` counts it."""

    @property
    def prunable(self) -> float:
        """The cost that masks could remove."""
        return self.cost(kept_in(self.width, self.heads, self.intermediate)) if self.removable is None else self.removable

    @property
    def least(self) -> float:
        """The cost of a single channel, without heads and MLP units: the least that a tower keeps."""
        return self.cost(kept_in(1, [0] * len(self.heads), [0] * len(self.intermediate)))

    def expected(self, scores: Mask) -> Tensor:
        """Return the expected cost (scalar, differentiable), where every unit is kept with the probability of its score.

        A head or unit costs in proportion to the channels, so the sum over all pairs is a product of sums. A block costs nothing
        in as far as all of its units are expected to be removed.
        """
        heads, units = torch.cat(scores.heads).sum(), torch.cat(scores.intermediate).sum()
        nothing = heads.new_zeros(())
        if not any((*self.attention, *self.mlp, *self.block)):
            return self.cost(Kept(scores.hidden.sum(), heads, units, nothing, nothing, nothing))
        empty = [torch.stack([_all_removed(row) for row in rows]) for rows in (scores.heads, scores.intermediate)]
        attentions, mlps, blocks = ((1 - share).sum() for share in (empty[0], empty[1], empty[0] * empty[1]))
        return self.cost(Kept(scores.hidden.sum(), heads, units, attentions, mlps, blocks))

    def cost(self, kept: Kept[Number]) -> Number:
        """Return the cost of a number of channels, heads and MLP units, as the constraint counts it."""
        total = kept.channels * kept.heads * self.head.channel + self.unit.channel * kept.channels * kept.units
        total = total + self.channel * kept.channels + self.head.fixed * kept.heads + self.unit.fixed * kept.units
        for part, count in ((self.attention, kept.attentions), (self.mlp, kept.mlps), (self.block, kept.blocks)):
            total = total + (part.fixed + part.channel * kept.channels) * count
        return total

    def marginal(self, kept: Kept[float]) -> tuple[float, float, float]:
        """Return how much one channel, one head and one MLP unit cost, beside the others that are kept."""
        channel = self.channel + self.head.channel * kept.heads + self.unit.channel * kept.units
        for part, count in ((self.attention, kept.attentions), (self.mlp, kept.mlps), (self.block, kept.blocks)):
            channel += part.channel * count
        head, unit = (part.fixed + part.channel * kept.channels for part in (self.head, self.unit))
        return channel, head, unit


def parameter_cost(width: int, heads: Sequence[int], intermediate: Sequence[int], head_width: int) -> TowerCost:
    """Return the parameters that masks can remove from a tower.

    Of a head those of q, k, v and output projection, with biases, over all channels. Biases of MLPs are part of what could be
    removed, and do not count when it is: this is the reference's measure of sparsity.
    """
    mlp = sum(2 * width * units + width + units for units in intermediate)
    per_head = 4 * head_width * (width + 1)
    return TowerCost(
        width,
        tuple(heads),
        tuple(intermediate),
        head=PerChannel(channel=per_head / width),
        unit=PerChannel(channel=2.0),
        removable=sum(heads) * per_head + mlp,
    )


def _all_removed(scores: Tensor) -> Tensor:
    """Return the probability that none of some units is kept."""
    return (1 - scores).clamp(min=0).prod()


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


Towers = Sequence[tuple[TowerMasks, TowerCost]]


def joint_lagrangian(towers: Towers, constraint: Constraint, step: int) -> SparsityPenalty:
    """Constrain the towers together, so that they trade cost with each other; for a single tower too."""
    expected = torch.stack([cost.expected(masks.scores()) for masks, cost in towers]).sum()
    sparsity = 1 - expected / sum(cost.prunable for _, cost in towers)
    lambda_1 = torch.stack([masks.lambda_1 for masks, _ in towers]).mean()
    lambda_2 = torch.stack([masks.lambda_2 for masks, _ in towers]).mean()
    # One-sided: a student smaller than the target has no penalty.
    gap = (constraint.at(step) - sparsity).clamp(min=0)
    return SparsityPenalty(lambda_1 * gap + lambda_2 * gap.square(), sparsity.detach(), constraint.at(step))


def separate_lagrangian(towers: Towers, constraint: Constraint, step: int) -> SparsityPenalty:
    """Constrain each tower; the expected sparsity is that of all together."""
    penalties = [joint_lagrangian([tower], constraint, step) for tower in towers]
    prunable = [cost.prunable for _, cost in towers]
    removed = [penalty.expected_sparsity * count for penalty, count in zip(penalties, prunable, strict=True)]
    sparsity = torch.stack(removed).sum() / sum(prunable)
    return SparsityPenalty(torch.stack([penalty.loss for penalty in penalties]).sum(), sparsity, constraint.at(step))

"""The student of an automatic stage: two towers under learnable masks, until they are folded (METHOD sections 3 to 7).

    towers = MaskedTowers(clip, original_layout, ("image", "text"), constraint)
    image_BD, text_BD, scale, bias = towers(images_BCHW, tokens_BT, towers.noise(generator))
    loss = … + towers.sparsity_penalty(step).loss    # then one step of the weights' optimizer and of the masks' optimizer
    towers.clamp_()
    student = towers.folded_model()                  # at the prune step; trained on with a new optimizer

A later stage does the same with the folded model: only its units have masks, while sizes stay relative to the original.
Shapes: B batch, D embedding size.
"""

from collections.abc import Mapping, Sequence

import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from torch import Tensor, nn

from tinyclip_workers.model.fold import fold
from tinyclip_workers.model.masks import (
    LOGA_CEILING,
    LOGA_FLOOR,
    TOWERS,
    Granularity,
    Group,
    Mask,
    Tower,
    TowerMasks,
)
from tinyclip_workers.model.sparsity import (
    Constraint,
    Kept,
    SparsityPenalty,
    TowerCost,
    joint_lagrangian,
    kept_by,
    kept_in,
    parameter_cost,
    separate_lagrangian,
)
from tinyclip_workers.model.towers import Clip, normalized, scale_and_bias

Noise = Mapping[str, dict[Group, Tensor]]

FARTHEST_OFFSET = 2 * (LOGA_CEILING - LOGA_FLOOR)
"""Enough to count all units as kept, or none, wherever in the clamp they are."""
OFFSET_ACCURACY = 1e-6


class MaskedTowers(nn.Module):
    """A Clip and the masks of one or both towers, as one module for a data-parallel wrapper."""

    def __init__(
        self,
        clip: Clip,
        original: Layout,
        towers: Sequence[Tower],
        constraint: Constraint,
        *,
        joint: bool = True,
        granularity: Granularity = "exact",
        costs: Mapping[Tower, TowerCost] | None = None,
    ) -> None:
        """`original` is the unpruned layout that sparsity is relative to; `joint`: one constraint over both towers.

        `costs`: what the constraint is about, for each of the towers; None: parameters. Raises ValueError if a tower to be masked
        is not a transformer.
        """
        super().__init__()
        self.clip, self.constraint, self.joint = clip, constraint, joint
        self.masks = nn.ModuleDict({tower: fresh_masks(_tower(clip.layout, tower), granularity) for tower in towers})
        self.costs: dict[Tower, TowerCost] = {
            tower: size_of(_tower(original, tower)) if costs is None else costs[tower] for tower in towers
        }
        self.offsets: dict[Tower, float] = dict.fromkeys(towers, 0.0)

    def tower_masks(self) -> dict[Tower, TowerMasks]:
        found: dict[Tower, TowerMasks] = {}
        for tower in TOWERS:
            if tower in self.masks and isinstance(masks := self.masks[tower], TowerMasks):
                found[tower] = masks
        return found

    def noise(self, generator: torch.Generator) -> Noise:
        """Draw the random numbers of one forward pass, image before text; every worker draws its own."""
        return {tower: masks.noise(generator) for tower, masks in self.tower_masks().items()}

    def forward(
        self, images_BCHW: Tensor, tokens_BL: Tensor, noise: Noise | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return image_BD and text_BD, L2-normalised in fp32, similarity multiplier and bias, under one sample of the masks.

        Without noise the masks are the deterministic ones, as in evaluation.
        """
        if noise is None:
            masks = self.deterministic()
        else:
            masks = {tower: masks.sample(noise[tower]) for tower, masks in self.tower_masks().items()}
        image_BD = normalized(self.clip.encode_image(images_BCHW, masks.get("image")))
        text_BD = normalized(self.clip.encode_tokens(tokens_BL, masks.get("text")))
        return image_BD, text_BD, *scale_and_bias(self.clip)

    def sparsity_penalty(self, step: int) -> SparsityPenalty:
        """Return the Lagrangian term for the target sparsity of this step of the stage; the same on every worker."""
        towers = [(masks, self.costs[tower]) for tower, masks in self.tower_masks().items()]
        return (joint_lagrangian if self.joint else separate_lagrangian)(towers, self.constraint, step)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep log-odds in their range; to be called after every optimizer step."""
        for masks in self.tower_masks().values():
            masks.clamp_()

    def deterministic(self) -> dict[Tower, Mask]:
        """Return the masks of evaluation and of the fold; after `match_target_sparsity`, of the target size."""
        return {tower: masks.deterministic(self.offsets[tower]) for tower, masks in self.tower_masks().items()}

    @torch.no_grad()
    def match_target_sparsity(self) -> None:
        """Let the deterministic masks keep at most the final target size from here on, and hardly a unit less.

        The constraint is one-sided and its optimizer has momentum: a quick search ends some percent beyond its target, a short
        one before it. The search determines the order in which units are removed and the factors of those that stay. How many
        are removed is counted with one offset to all log-odds (with separate constraints, one for each tower). Only units of
        equal log-odds in several layers, as in a search that has not begun, are kept or removed together.
        """
        for towers in [list(self.offsets)] if self.joint else [[tower] for tower in self.offsets]:
            self._match_target(towers)

    def _match_target(self, towers: Sequence[Tower]) -> None:
        few_enough, too_many = -FARTHEST_OFFSET, FARTHEST_OFFSET
        while too_many - few_enough > OFFSET_ACCURACY:
            middle = (few_enough + too_many) / 2
            self.offsets.update(dict.fromkeys(towers, middle))
            if self._sparsity_of(towers) >= self.constraint.target:
                few_enough = middle
            else:
                too_many = middle
        self.offsets.update(dict.fromkeys(towers, few_enough))

    def sparsity(self) -> float:
        """Return the share of the prunable cost that the deterministic masks remove, as the constraint counts it."""
        return self._sparsity_of(list(self.offsets))

    def _sparsity_of(self, towers: Sequence[Tower]) -> float:
        masks = self.deterministic()
        kept = sum(self.costs[tower].cost(kept_by(masks[tower])) for tower in towers)
        return 1 - kept / sum(self.costs[tower].prunable for tower in towers)

    @torch.no_grad()
    def folded_model(self, parity: bool = False) -> Clip:
        """Return the smaller model of the deterministic masks, on the same device; it computes what the masked one does."""
        state, layout = fold(self.clip.state_dict(), self.clip.layout, self.deterministic(), parity)
        model = Clip(layout).to(self.clip.logit_scale.device, self.clip.logit_scale.dtype)
        model.load_state_dict(state, strict=True)
        return model.train(self.clip.training)


def fresh_masks(layout: ImageLayout | TextLayout, granularity: Granularity = "exact") -> TowerMasks:
    """Make masks that keep every unit of a tower."""
    heads, mlp = _branches(layout)
    return TowerMasks(layout.width, heads, mlp, granularity)


def full_mask(layout: Layout, tower: Tower) -> Mask:
    """Return the mask of a tower that keeps every unit, with factor 1."""
    sizes = _tower(layout, tower)
    heads, mlp = _branches(sizes)
    return Mask(torch.ones(sizes.width), tuple(torch.ones(count) for count in heads), tuple(torch.ones(count) for count in mlp))


def size_of(layout: ImageLayout | TextLayout) -> TowerCost:
    """Return the parameters of a tower's parts."""
    return parameter_cost(layout.width, *_branches(layout), layout.head_width)


def removed_share(
    original: Layout, pruned: Layout, towers: Sequence[Tower], costs: Mapping[Tower, TowerCost] | None = None
) -> float:
    """Return the share of some towers' prunable cost that a pruned layout lacks, as the constraint counts it.

    `costs`: for each of the towers; None: parameters.
    """
    costs = costs or {tower: size_of(_tower(original, tower)) for tower in towers}
    kept = sum(cost.cost(units_of(pruned, tower)) for tower, cost in costs.items())
    return 1 - kept / sum(cost.prunable for cost in costs.values())


def units_of(layout: Layout, tower: Tower) -> Kept[float]:
    """Count a tower's units."""
    sizes = _tower(layout, tower)
    return kept_in(sizes.width, *_branches(sizes))


def kept_units(pruned: Layout, original: Layout | None) -> dict[str, float]:
    """Return the shares of the original's channels, heads and MLP units that a layout has, such as `image_heads_kept`."""
    shares: dict[str, float] = {}
    for tower in ("image", "text"):
        layout, full = _tower(pruned, tower), _tower(original or pruned, tower)
        shares[f"{tower}_channels_kept"] = layout.width / full.width
        if layout.heads and layout.mlp and full.heads and full.mlp:
            shares[f"{tower}_heads_kept"] = sum(layout.heads) / sum(full.heads)
            shares[f"{tower}_mlp_kept"] = sum(layout.mlp) / sum(full.mlp)
    return shares


def _branches(layout: ImageLayout | TextLayout) -> tuple[list[int], list[int]]:
    if layout.heads is None or layout.mlp is None:
        raise ValueError(
            "prune.towers: image: the image tower is a ResNet, which has no heads or MLP units to mask; "
            "use prune.towers: [text], or inherit: manual"
        )
    return layout.heads, layout.mlp


def _tower(layout: Layout, tower: str) -> ImageLayout | TextLayout:
    return layout.image if tower == "image" else layout.text

"""The cases of the mask fixtures: a full student, its masks, and both as our modules."""

from typing import Any

import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from tinyclip_workers.model.masks import GROUPS, Group, Mask, TowerMasks
from tinyclip_workers.model.sparsity import Constraint, TowerCost, parameter_cost
from tinyclip_workers.model.towers import Clip

from tests.workers.layouts import layout_of
from tests.workers.parity import Arrays, document

DOCUMENT: dict[str, Any] = document("mask.json")
CASES = list(DOCUMENT["cases"])
TOWERS = ("image", "text")
QUICK_GELU = DOCUMENT.get("act", "GELU") == "QuickGELU"
LAYOUT: Layout = layout_of(DOCUMENT["config"]).model_copy(update={"quick_gelu": QUICK_GELU})
CONSTRAINT = Constraint(DOCUMENT["start_sparsity"], DOCUMENT["target_sparsity"], DOCUMENT["sparsity_warmup"])
TOLERANCE = 1e-5


def tower_layout(tower: str) -> ImageLayout | TextLayout:
    return LAYOUT.image if tower == "image" else LAYOUT.text


def size_of(tower: str) -> TowerCost:
    layout = tower_layout(tower)
    assert layout.heads
    assert layout.mlp
    return parameter_cost(layout.width, layout.heads, layout.mlp, layout.head_width)


def masks_of(case: str, tower: str) -> TowerMasks:
    arrays, size = Arrays("mask.npz", f"{case}/{tower}/"), size_of(tower)
    masks = TowerMasks(size.width, size.heads, size.intermediate, granularity="paper")
    with torch.no_grad():
        for group, loga in masks.loga().items():
            loga.copy_(arrays[f"loga_{group}"].flatten())
        masks.lambda_1.copy_(arrays["lambda"][0])
        masks.lambda_2.copy_(arrays["lambda"][1])
    return masks


def noise_of(case: str, tower: str) -> dict[Group, torch.Tensor]:
    arrays = Arrays("mask.npz", f"{case}/{tower}/")
    return {group: arrays[f"u_{group}"].flatten() for group in GROUPS}


def flat(mask: Mask, group: Group) -> torch.Tensor:
    return torch.cat(mask.rows(group))


def full_student() -> Clip:
    model = Clip(LAYOUT)
    model.load_state_dict(Arrays("weights.npz").under("weights/"))
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    arrays = Arrays("mask.npz")
    return arrays["images"], arrays["tokens"]

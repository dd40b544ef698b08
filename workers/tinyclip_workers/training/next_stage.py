"""How the published code starts a stage from a pruned student: spread over the full model again, the gone units as zeros.

Ours masks the small student itself (`masked.MaskedTowers`), where no dead unit can be counted as alive: here a tower of 3072
MLP units with 768 living ones counts 769, and 875 after the first clamp (METHOD F9, F10). Kept to be compared with.
"""

import re
from collections.abc import Mapping

import torch
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from torch import Tensor

from tinyclip_workers.model.masked import fresh_masks
from tinyclip_workers.model.masks import LOGA_AT_START, TowerMasks

State = dict[str, Tensor]

_IN_PROJ = re.compile(r"attn\.in_proj_(weight|bias)$")


def spread(small: Mapping[str, Tensor], full: Mapping[str, Tensor]) -> State:
    """Every tensor of the small model as the leading slice of a full one of zeros (q, k and v each); missing ones all zero.

    `full` gives names, shapes and types. The logit scale is copied.
    """
    state = {name: torch.zeros_like(tensor) for name, tensor in full.items()}
    for name, tensor in small.items():
        there = state[name]
        if _IN_PROJ.search(name):
            there, tensor = (t.view(3, t.shape[0] // 3, *t.shape[1:]) for t in (there, tensor))
        there[tuple(slice(size) for size in tensor.shape)] = tensor
    return state


def spread_masks(small: Layout, full: Layout) -> dict[str, TowerMasks]:
    """Masks of the full towers: log-odds +10 for as many leading units as the small ones have, -10 for the others."""
    pairs: dict[str, tuple[ImageLayout | TextLayout, ImageLayout | TextLayout]] = {
        "image": (small.image, full.image),
        "text": (small.text, full.text),
    }
    return {tower: _alive(fresh_masks(there, "paper"), fresh_masks(own)) for tower, (own, there) in pairs.items()}


@torch.no_grad()
def _alive(full: TowerMasks, small: TowerMasks) -> TowerMasks:
    for group, loga in full.loga().items():
        rows = loga.split(full.sizes[group])
        for row, living in zip(rows, small.sizes[group], strict=True):
            row[living:] = -LOGA_AT_START
    return full

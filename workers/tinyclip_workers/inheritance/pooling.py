"""The attention pooling of a student's images: the heads and MLP units of its parent's that add most to what it finds.

Shapes: B pairs of a part, H heads of width h, m MLP units, p width of the result.
"""

import torch
from tinyclip.schemas.layouts import Layout, PoolLayout
from torch import Tensor, nn

from tinyclip_workers.inheritance.streams import Pairs, TransformerTower, attend, transform
from tinyclip_workers.model.fold import State
from tinyclip_workers.model.towers import Clip

HEAD_ROWS = ("query", "k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias")
"""Tensors of the pooling that have h rows for each head."""
PREFIX = "visual.pool."


@torch.no_grad()
def cut_pooling(parent: Clip, state: State, layout: Layout, student: PoolLayout, pairs: Pairs) -> tuple[State, Layout]:
    """Cut the pooling of `state` to a student's heads and MLP units; its tower may have been cut before."""
    heads_h, units_m = _added(parent, pairs)
    heads, units = _largest(heads_h, student.heads), _largest(units_m, student.mlp)
    head_width = layout.image.head_width
    rows = (heads[:, None] * head_width + torch.arange(head_width)).flatten()
    new = dict(state)
    for name in HEAD_ROWS:
        new[PREFIX + name] = state[PREFIX + name][rows]
    new[f"{PREFIX}out_proj.weight"] = state[f"{PREFIX}out_proj.weight"][:, rows]
    for name in ("weight", "bias"):
        new[f"{PREFIX}mlp.c_fc.{name}"] = state[f"{PREFIX}mlp.c_fc.{name}"][units]
    new[f"{PREFIX}mlp.c_proj.weight"] = state[f"{PREFIX}mlp.c_proj.weight"][:, units]
    pool = student.model_copy(update={"width": len(state[f"{PREFIX}ln.weight"])})
    return new, layout.model_copy(update={"image": layout.image.model_copy(update={"pool": pool})})


def _added(parent: Clip, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the mean square of what each head (H,) and each MLP unit (m,) adds, over calibration pairs."""
    tower = TransformerTower(parent, "image")
    pool = tower.pool
    assert pool is not None, "the caller has checked it"
    assert isinstance(pool.mlp.c_proj, nn.Linear), "pooling keeps some units"
    writes_Hhp = pool.out_proj.weight.T.unflatten(0, (pool.heads, -1))
    writes_m = pool.mlp.c_proj.weight.square().sum(0)
    heads_H, units_m = torch.zeros(pool.heads), torch.zeros(len(writes_m))
    for images in pairs.images():
        stream_BTd = tower.start(images)
        for block in tower.blocks:
            stream_BTd = transform(block, attend(block, stream_BTd))
        found_BX = pool.head_outputs(tower.final_norm(stream_BTd))
        added_BHp = torch.einsum("bhx,hxp->bhp", found_BX.unflatten(1, (pool.heads, -1)), writes_Hhp)
        heads_H += added_BHp.square().sum(dim=(0, 2)).cpu()
        active_Bm = pool.mlp.activations(pool.ln(pool.out_proj(found_BX)))
        units_m += (active_Bm.square().sum(0) * writes_m).cpu()
    return heads_H, units_m


def _largest(scores: Tensor, count: int) -> Tensor:
    """Return the numbers of the units of largest score, ascending."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values

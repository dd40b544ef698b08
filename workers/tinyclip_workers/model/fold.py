"""Fold masks into the weights: a smaller model that computes the same (METHOD section 6).

Works on state dicts with open_clip's names. d width, H_l heads of width h and m_l MLP units of layer l.
"""

from collections.abc import Mapping
from typing import Any

import torch
from tinyclip.schemas.layouts import Layout
from torch import Tensor

from tinyclip_workers.model.masks import Mask, Tower

State = dict[str, Tensor]

PREFIXES = {"image": "visual.", "text": ""}
"""Prefix of a tower's tensor names."""
POOL_READERS = ("visual.pool.k_proj", "visual.pool.v_proj")
"""The linear layers of attention pooling that read the residual stream."""


def is_pooled(state: Mapping[str, Tensor]) -> bool:
    """Return whether a model's images are pooled by attention, as SigLIP's are."""
    return f"{POOL_READERS[0]}.weight" in state


def fold(state: Mapping[str, Tensor], layout: Layout, masks: Mapping[Tower, Mask], parity: bool = False) -> tuple[State, Layout]:
    """Remove the units of factor 0 and multiply the other factors into the weights, for "image", "text" or both.

    The folded model computes what the masked one did; a layer that loses all heads keeps the constant that they added.
    Returns new tensors and their layout; towers without a mask are unchanged.
    `parity` repeats two faults of the reference: projections scaled once more (F1), and that constant lost (F2: it is 0).
    """
    folded = {name: tensor.detach().clone() for name, tensor in state.items()}
    device = next(iter(folded.values())).device
    masks = {tower: mask.to(device) for tower, mask in masks.items()}
    head_widths = {"image": layout.image.head_width, "text": layout.text.head_width}
    for tower, mask in masks.items():
        prefix, head_width = PREFIXES[tower], head_widths[tower]
        _fold_ends(folded, tower, mask, parity)
        for layer, (heads, units) in enumerate(zip(mask.heads, mask.intermediate, strict=True)):
            block = f"{prefix}transformer.resblocks.{layer}."
            _fold_attention(folded, block, mask.hidden, heads, head_width, parity)
            _fold_mlp(folded, block, mask.hidden, units)
    return folded, folded_layout(layout, masks)


def folded_layout(layout: Layout, masks: Mapping[Tower, Mask]) -> Layout:
    """Return the layout that remains after folding these masks."""
    towers = {"image": layout.image, "text": layout.text}
    changed: dict[str, Any] = {
        tower: towers[tower].model_copy(
            update={
                "width": int((mask.hidden != 0).sum()),
                "heads": [int((row != 0).sum()) for row in mask.heads],
                "mlp": [int((row != 0).sum()) for row in mask.intermediate],
            }
        )
        for tower, mask in masks.items()
    }
    return layout.model_copy(update=changed)


def _fold_ends(state: State, tower: str, mask: Mask, parity: bool) -> None:
    """Fold embeddings, outer LayerNorms and the projection of one tower."""
    kept, zh = _kept(mask.hidden), mask.hidden[mask.hidden != 0]
    if tower == "image":
        scaled = ["visual.class_embedding", "visual.positional_embedding", "visual.conv1.bias"]
        norms, projection = ["visual.ln_pre", "visual.ln_post"], "visual.proj"
        state["visual.conv1.weight"] = state["visual.conv1.weight"][kept] * zh[:, None, None, None]
    else:
        scaled = ["token_embedding.weight", "positional_embedding"]
        norms, projection = ["ln_final"], "text_projection"
    for name in scaled:
        if name in state:
            state[name] = state[name][..., kept] * zh
    for norm in norms:
        if f"{norm}.weight" in state:
            _keep_norm(state, norm, kept)
    if tower == "image" and is_pooled(state):
        for name in POOL_READERS:
            state[f"{name}.weight"] = state[f"{name}.weight"][:, kept]
    else:
        state[projection] = state[projection][kept] * (zh[:, None] if parity else 1)


def _fold_attention(state: State, block: str, hidden: Tensor, heads: Tensor, head_width: int, parity: bool) -> None:
    kept, zh = _kept(hidden), hidden[hidden != 0]
    if f"{block}attn.in_proj_weight" not in state:  # an earlier prune removed all heads; the constant remains
        state[f"{block}attn.out_proj.bias"] = state[f"{block}attn.out_proj.bias"][kept] * zh
        return
    if not heads.any():
        for name in ("ln_1.weight", "ln_1.bias", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight"):
            del state[block + name]
        state[f"{block}attn.out_proj.bias"] = state[f"{block}attn.out_proj.bias"][kept] * (0 if parity else zh)
        return
    columns = _kept(heads.repeat_interleave(head_width))
    rows = torch.cat([columns + third * len(heads) * head_width for third in range(3)])
    ze = heads[heads != 0].repeat_interleave(head_width)
    _keep_norm(state, f"{block}ln_1", kept)
    state[f"{block}attn.in_proj_weight"] = state[f"{block}attn.in_proj_weight"][rows][:, kept]
    state[f"{block}attn.in_proj_bias"] = state[f"{block}attn.in_proj_bias"][rows]
    state[f"{block}attn.out_proj.weight"] = state[f"{block}attn.out_proj.weight"][kept][:, columns] * zh[:, None] * ze
    state[f"{block}attn.out_proj.bias"] = state[f"{block}attn.out_proj.bias"][kept] * zh


def _fold_mlp(state: State, block: str, hidden: Tensor, units: Tensor) -> None:
    kept, zh = _kept(hidden), hidden[hidden != 0]
    state[f"{block}mlp.c_proj.bias"] = state[f"{block}mlp.c_proj.bias"][kept] * zh
    if f"{block}mlp.c_fc.weight" not in state:
        return
    if not units.any():
        for name in ("ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight"):
            del state[block + name]
        return
    rows, zi = _kept(units), units[units != 0]
    _keep_norm(state, f"{block}ln_2", kept)
    state[f"{block}mlp.c_fc.weight"] = state[f"{block}mlp.c_fc.weight"][rows][:, kept]
    state[f"{block}mlp.c_fc.bias"] = state[f"{block}mlp.c_fc.bias"][rows]
    state[f"{block}mlp.c_proj.weight"] = state[f"{block}mlp.c_proj.weight"][kept][:, rows] * zh[:, None] * zi


def _keep_norm(state: State, norm: str, kept: Tensor) -> None:
    """Select the kept channels of a LayerNorm. Its weights are not scaled: it uses a mask as a set."""
    for name in (f"{norm}.weight", f"{norm}.bias"):
        state[name] = state[name][kept]


def _kept(factors: Tensor) -> Tensor:
    return factors.nonzero().flatten()

"""Transformer blocks whose layers differ in heads and MLP width, with or without a mask; open_clip's names in the state dict.

Shapes: B batch, T tokens, d width, H_l heads and m_l MLP units of layer l, h width of a head.
Of a branch without heads (or MLP units) only a constant remains: its output bias.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyclip_workers.model.masks import Mask

Activation: TypeAlias = Literal["gelu", "quick_gelu", "tanh_gelu"]
NORM_EPS = 1e-5
"""Of a LayerNorm's variance; SigLIP's towers have another one."""


class MaskedLayerNorm(nn.LayerNorm):
    """LayerNorm over the kept channels; the others become 0.

    Computed with 0/1 weights, not by gathering channels, so that shapes stay fixed and it compiles. The fused kernel normalises
    over all d channels: the n kept ones are scaled by sqrt(d/n), so that its variance is theirs.
    """

    def forward(self, x: Tensor, kept_d: Tensor | None = None) -> Tensor:
        """Normalise x (…, d); `kept_d` (d,) has 0 and 1, `None` keeps all."""
        if kept_d is None:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = kept_d.sum().clamp(min=1)
        larger = (len(kept_d) / count).sqrt()
        centred = (wide - (wide * kept_d).sum(-1, keepdim=True) / count) * (kept_d * larger)
        weight, bias = self.weight / larger, self.bias * kept_d
        return F.layer_norm(centred, self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """The approximation of GELU that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Self-attention of H_l heads of width h over d channels; without heads, only its output bias."""

    def __init__(self, width: int, heads: int, head_width: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        if heads == 0:
            self.out_proj: nn.Linear | OutputBias = OutputBias(width)
            return
        self.in_proj_weight = nn.Parameter(torch.empty(3 * heads * head_width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * heads * head_width))
        self.out_proj = nn.Linear(heads * head_width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x_BTd: Tensor, heads_mask: Tensor | None = None) -> Tensor:
        if isinstance(self.out_proj, OutputBias):
            return self.out_proj.expand_to(x_BTd)
        return F.linear(self.head_outputs(x_BTd, heads_mask), self.out_proj.weight, self.out_proj.bias)

    def head_outputs(self, x_BTd: Tensor, heads_mask: Tensor | None = None) -> Tensor:
        """Return the outputs of all heads side by side (B, T, H_l*h), the input of the output projection."""
        batch, tokens, _ = x_BTd.shape
        qkv = F.linear(x_BTd, self.in_proj_weight, self.in_proj_bias).view(batch, tokens, 3, self.heads, -1)
        q_BHTh, k_BHTh, v_BHTh = qkv.permute(2, 0, 3, 1, 4)
        out_BHTh = F.scaled_dot_product_attention(q_BHTh, k_BHTh, v_BHTh, is_causal=self.causal)
        if heads_mask is not None:
            out_BHTh = out_BHTh * heads_mask[:, None, None].to(out_BHTh.dtype)
        return out_BHTh.transpose(1, 2).flatten(2)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "quick_gelu": QuickGELU, "tanh_gelu": lambda: nn.GELU(approximate="tanh"),
}  # fmt: skip


class Mlp(nn.Module):
    """d -> m_l -> d; without units, only its output bias."""

    def __init__(self, width: int, units: int, activation: Activation) -> None:
        super().__init__()
        if units == 0:
            self.c_proj: nn.Linear | OutputBias = OutputBias(width)
            return
        self.c_fc = nn.Linear(width, units)
        self.gelu = ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(units, width)

    def forward(self, x_BTd: Tensor, units_mask: Tensor | None = None) -> Tensor:
        if isinstance(self.c_proj, OutputBias):
            return self.c_proj.expand_to(x_BTd)
        return F.linear(self.activations(x_BTd, units_mask), self.c_proj.weight, self.c_proj.bias)

    def activations(self, x_BTd: Tensor, units_mask: Tensor | None = None) -> Tensor:
        """Return the activations of all units (B, T, m_l), the input of the output projection."""
        x_BTm: Tensor = self.gelu(self.c_fc(x_BTd))
        return x_BTm if units_mask is None else x_BTm * units_mask.to(x_BTm.dtype)


class OutputBias(nn.Module):
    """A branch that lost all its units: the constant that it added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def expand_to(self, x_BTd: Tensor) -> Tensor:
        """Return the constant, in the shape and type of x_BTd."""
        return self.bias.to(x_BTd.dtype).expand_as(x_BTd)


class Block(nn.Module):
    """Pre-norm attention and MLP on a residual stream; a branch without units has no LayerNorm."""

    def __init__(
        self, width: int, heads: int, units: int, head_width: int, causal: bool, activation: Activation, eps: float
    ) -> None:
        super().__init__()
        self.ln_1 = MaskedLayerNorm(width, eps) if heads else None
        self.attn = Attention(width, heads, head_width, causal)
        self.ln_2 = MaskedLayerNorm(width, eps) if units else None
        self.mlp = Mlp(width, units, activation)

    def forward(
        self,
        x_BTd: Tensor,
        kept_d: Tensor | None = None,
        hidden_d: Tensor | None = None,
        heads: Tensor | None = None,
        units: Tensor | None = None,
    ) -> Tensor:
        """Compute the block; the last three are its layer's part of a mask, `kept_d` is `Mask.kept_channels`."""
        attention = self.attn(x_BTd if self.ln_1 is None else self.ln_1(x_BTd, kept_d), heads)
        x_BTd = x_BTd + scaled(attention, hidden_d)
        mlp = self.mlp(x_BTd if self.ln_2 is None else self.ln_2(x_BTd, kept_d), units)
        return x_BTd + scaled(mlp, hidden_d)


class Transformer(nn.Module):
    """A stack of blocks, each of its own size.

    With `grad_checkpointing`, the name that open_clip's has, training keeps only what enters each block and computes the
    rest again in the backward pass.
    """

    def __init__(
        self,
        width: int,
        heads: Sequence[int],
        mlp: Sequence[int],
        head_width: int,
        causal: bool,
        activation: Activation,
        eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.resblocks = nn.ModuleList(
            Block(width, block_heads, units, head_width, causal, activation, eps)
            for block_heads, units in zip(heads, mlp, strict=True)
        )

    def forward(self, x_BTd: Tensor, mask: Mask | None = None, kept_d: Tensor | None = None) -> Tensor:
        for layer, block in enumerate(self.resblocks):
            masks = () if mask is None else (kept_d, mask.hidden, mask.heads[layer], mask.intermediate[layer])
            x_BTd = run_block(block, self.grad_checkpointing, x_BTd, *masks)
        return x_BTd


class AttentionPool(nn.Module):
    """The pooling of SigLIP's ViTs: heads of a learned query over all patches, then an MLP on what they found.

    p is the width of its result. Masks do not remove its units: they are part of the projection to the embedding.
    """

    def __init__(
        self, width: int, pooled: int, heads: int, units: int, head_width: int, activation: Activation, eps: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(heads * head_width))
        self.k_proj = nn.Linear(width, heads * head_width)
        self.v_proj = nn.Linear(width, heads * head_width)
        self.out_proj = nn.Linear(heads * head_width, pooled)
        self.ln = MaskedLayerNorm(pooled, eps)
        self.mlp = Mlp(pooled, units, activation)

    def forward(self, x_BTd: Tensor) -> Tensor:
        """Return what the embedding is projected from (B, p), from normalised patches."""
        return self.transform(self.out_proj(self.head_outputs(x_BTd)))

    def head_outputs(self, x_BTd: Tensor) -> Tensor:
        """Return the outputs of all heads side by side (B, H*h)."""
        k_BHTh, v_BHTh = (
            project(x_BTd).unflatten(2, (self.heads, -1)).transpose(1, 2) for project in (self.k_proj, self.v_proj)
        )
        q_BH1h = self.query.to(k_BHTh.dtype).view(1, self.heads, 1, -1).expand(k_BHTh.shape[0], -1, -1, -1)
        return F.scaled_dot_product_attention(q_BH1h, k_BHTh, v_BHTh).flatten(1)

    def transform(self, found_Bp: Tensor) -> Tensor:
        """Add the MLP's result to what attention found."""
        added_Bp: Tensor = self.mlp(self.ln(found_Bp))
        return found_Bp + added_Bp


def run_block(block: Callable[..., Tensor], checkpointing: bool, *inputs: Any) -> Tensor:
    """Call a block; with checkpointing keep only its inputs for the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        # Blocks draw no random numbers, so no random state has to be kept.
        output: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return output
    return block(*inputs)


def causal_block(block: Any, x_BLd: Tensor, mask_LL: Tensor) -> Tensor:
    """Compute a block of open_clip's text tower; with `is_causal` instead of its mask, attention can be a fused kernel."""
    normal_BLd = block.ln_1(x_BLd)
    attention_BLd, _ = block.attn(normal_BLd, normal_BLd, normal_BLd, need_weights=False, attn_mask=mask_LL, is_causal=True)
    x_BLd = x_BLd + block.ls_1(attention_BLd)
    result_BLd: Tensor = x_BLd + block.ls_2(block.mlp(block.ln_2(x_BLd)))
    return result_BLd


def scaled(x: Tensor, factor_d: Tensor | None) -> Tensor:
    """Multiply x by a mask of its last axis, in x's type; without a mask return x."""
    return x if factor_d is None else x * factor_d.to(x.dtype)

"""Image and text towers: our own, whose layers may differ in size and be masked, and the text encoding of any model.

Our towers have open_clip's names in their state dict and compute the same where all layers are alike, so weights are
interchangeable. open_clip cannot express a student of automatic inheritance: per layer its own heads and MLP width, or none.

Shapes: B batch, T tokens, L tokens of the longest text, d width, E embedding size.
"""

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from torch import Tensor, nn

from tinyclip_workers.model.blocks import (
    NORM_EPS,
    Activation,
    AttentionPool,
    MaskedLayerNorm,
    Transformer,
    causal_block,
    run_block,
    scaled,
)
from tinyclip_workers.model.masks import Mask
from tinyclip_workers.model.precision import fp32
from tinyclip_workers.model.transfer import to_device

INITIAL_LOGIT_BIAS = -10.0
"""Of the sigmoid loss (Zhai et al. 2023): at first nearly all pairs are negative."""
SIGLIP_EPS = 1e-6
"""Of the LayerNorms in SigLIP's towers."""
RESNET_STEM = 3
"""Convolutions of a ResNet before its first block."""
LENGTHS_ON_CUDA = 8
"""On CUDA, lengths of texts are rounded up to a multiple of this: fewer kernels to choose and graphs to keep."""


COMPILED_BLOCK = "compiled_block"
"""Attribute of open_clip's text transformer: what computes its blocks instead of `causal_block` (`acceleration.py`)."""


class Clip(nn.Module):
    """Two towers of a layout. Load a state dict before use: weights have torch's defaults or are zero.

    Names are open_clip's: `visual.*` for the image tower, the text tower without a prefix, `logit_scale`.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        text, eps = layout.text, SIGLIP_EPS if layout.text.bidirectional else NORM_EPS
        self.layout = layout
        self.visual = image_tower(layout.image, layout.embed_dim, layout.quick_gelu)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.zeros(text.context_length, text.width))
        activation = _activation(text, layout.quick_gelu)
        self.transformer = Transformer(
            text.width, text.heads, text.mlp, text.head_width, not text.bidirectional, activation, eps
        )
        self.ln_final = MaskedLayerNorm(text.width, eps)
        self.text_projection = nn.Parameter(torch.zeros(text.width, layout.embed_dim))
        self.text_projection_bias = nn.Parameter(torch.zeros(layout.embed_dim)) if text.bidirectional else None
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.logit_bias = nn.Parameter(torch.tensor(INITIAL_LOGIT_BIAS)) if layout.logit_bias else None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Do as open_clip's models: compute blocks again in the backward pass instead of keeping what they computed."""
        self.visual.set_grad_checkpointing(enable)  # type: ignore[operator]  # both kinds of image tower have it
        self.transformer.grad_checkpointing = enable

    def encode_image(self, images_BCHW: Tensor, mask: Mask | None = None) -> Tensor:
        """Return image embeddings (B, E), not normalised. A ResNet takes no mask."""
        image_BE: Tensor = self.visual(images_BCHW) if mask is None else self.visual(images_BCHW, mask)
        return image_BE

    def encode_text(self, tokens_BT: Tensor, mask: Mask | None = None) -> Tensor:
        """Return text embeddings (B, E), not normalised, read at the end-of-text token (the largest id), or at the last one."""
        device = self.logit_scale.device
        trims = not self.layout.text.bidirectional
        return self.encode_tokens(without_padding(tokens_BT, device) if trims else to_device(tokens_BT, device), mask)

    def encode_tokens(self, tokens_BL: Tensor, mask: Mask | None = None) -> Tensor:
        """Do the same without trimming the padding: no shape depends on the tokens' values."""
        kept_d = None if mask is None else mask.kept_channels()
        x_BLd = scaled(self.embed_tokens(tokens_BL), None if mask is None else mask.hidden)
        x_BLd = self.ln_final(self.transformer(x_BLd, mask, kept_d), kept_d)
        if self.text_projection_bias is not None:
            text_BE: Tensor = x_BLd[:, -1] @ self.text_projection + self.text_projection_bias
            return text_BE
        return _at_end_of_text(x_BLd, tokens_BL) @ self.text_projection

    def embed_tokens(self, tokens_BL: Tensor) -> Tensor:
        """Return the residual stream before the text tower's first block (B, L, d)."""
        x_BLd: Tensor = self.token_embedding(tokens_BL) + self.positional_embedding[: tokens_BL.shape[1]]
        return x_BLd


Model: TypeAlias = CLIP | Clip
"""A model of either kind: ours, or one of a library, of which `CLIP` is the plain one. All have `encode_image`, `encode_text`,
`visual`, `logit_scale` and, with the sigmoid loss, `logit_bias`."""


class ImageTower(nn.Module):
    """A ViT: patches and a class token, whose final state is projected to the embedding; or, as in SigLIP, patches that are
    pooled by attention."""

    def __init__(self, layout: ImageLayout, embed_dim: int, quick_gelu: bool) -> None:
        super().__init__()
        heads, mlp, patch = layout.heads, layout.mlp, layout.patch_size
        assert heads and mlp and patch, "a ViT layout has heads, mlp and patch_size"  # noqa: PT018
        width, pool, patches = layout.width, layout.pool, (layout.image_size // patch) ** 2
        activation, eps = _activation(layout, quick_gelu), NORM_EPS if pool is None else SIGLIP_EPS
        self.class_embedding = nn.Parameter(torch.zeros(width)) if pool is None else None
        self.positional_embedding = nn.Parameter(torch.zeros(patches + (pool is None), width))
        self.proj = nn.Parameter(torch.zeros(width if pool is None else pool.width, embed_dim))
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=pool is not None)
        self.ln_pre = MaskedLayerNorm(width) if pool is None else None
        self.transformer = Transformer(width, heads, mlp, layout.head_width, False, activation, eps)
        self.ln_post = MaskedLayerNorm(width, eps)
        self.pool = None
        if pool is not None:
            self.pool = AttentionPool(width, pool.width, pool.heads, pool.mlp, layout.head_width, activation, eps)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.transformer.grad_checkpointing = enable

    def forward(self, images_BCHW: Tensor, mask: Mask | None = None) -> Tensor:
        """Return image embeddings (B, E), not normalised."""
        kept_d = None if mask is None else mask.kept_channels()
        x_BTd = self.transformer(self.embed(images_BCHW, mask), mask, kept_d)
        image_BE: Tensor = self.summary(x_BTd, kept_d) @ self.proj
        return image_BE

    def summary(self, x_BTd: Tensor, kept_d: Tensor | None = None) -> Tensor:
        """Return what is projected to the embedding: the normalised class token (B, d), or the pooled patches (B, p)."""
        if self.pool is not None:
            pooled_Bp: Tensor = self.pool(self.ln_post(x_BTd, kept_d))
            return pooled_Bp
        class_Bd: Tensor = self.ln_post(x_BTd[:, 0], kept_d)
        return class_Bd

    def embed(self, images_BCHW: Tensor, mask: Mask | None = None) -> Tensor:
        """Return the residual stream before the first block (B, T, d)."""
        x_BTd = scaled(self.tokens(images_BCHW), None if mask is None else mask.hidden)
        if self.ln_pre is None:
            return x_BTd
        normed_BTd: Tensor = self.ln_pre(x_BTd, None if mask is None else mask.kept_channels())
        return normed_BTd

    def tokens(self, images_BCHW: Tensor) -> Tensor:
        """Return class token, if there is one, and patches with their positions (B, T, d), not normalised."""
        patches_BTd: Tensor = self.conv1(images_BCHW).flatten(2).transpose(1, 2)
        if self.class_embedding is None:
            return patches_BTd + self.positional_embedding.to(patches_BTd.dtype)
        class_B1d = self.class_embedding.to(patches_BTd.dtype).expand(patches_BTd.shape[0], 1, -1)
        return torch.cat([class_B1d, patches_BTd], dim=1) + self.positional_embedding.to(patches_BTd.dtype)


def _activation(layout: ImageLayout | TextLayout, quick_gelu: bool) -> Activation:
    if layout.tanh_gelu:
        return "tanh_gelu"
    return "quick_gelu" if quick_gelu else "gelu"


def image_tower(layout: ImageLayout, embed_dim: int, quick_gelu: bool) -> nn.Module:
    """Build our ViT, or open_clip's ResNet, which cannot be masked."""
    if layout.kind == "vit":
        return ImageTower(layout, embed_dim, quick_gelu)
    heads = layout.width * 32 // layout.head_width
    resnet: nn.Module = ModifiedResNet(layout.layers, embed_dim, heads, image_size=layout.image_size, width=layout.width)
    return resnet


def encode_text(model: Model, tokens_BT: Tensor) -> Tensor:
    """Return text embeddings (B, E), not normalised: as `model.encode_text`, without computing the padding.

    Exact where attention is causal and the embedding is read at the end-of-text token (the first one of the largest id):
    it does not depend on what follows. Text towers of another kind encode the whole context. Tokens may be on the CPU, where
    their lengths are read without waiting for the model's device.
    """
    device = model.logit_scale.device
    return encode_tokens(model, without_padding(tokens_BT, device) if trims_padding(model) else to_device(tokens_BT, device))


def trims_padding(model: Model) -> bool:
    """Return whether a model does not read what follows the end of a text."""
    if isinstance(model, Clip):
        return not model.layout.text.bidirectional
    return _causal_tower(model) is not None or bool(getattr(model, "trims_padding", False))


def _causal_tower(model: Model) -> Any:
    """Return open_clip's text tower, if it is the plain one: causal, and read at the end of the text."""
    if isinstance(model, CLIP):
        return model if model.text_pool_type == "argmax" and model.attn_mask is not None else None
    tower = getattr(model, "text", None)
    if not isinstance(tower, TextTransformer) or tower.pool_type != "argmax" or tower.attn_mask is None:
        return None
    plain = all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
    return tower if plain and tower.cls_emb is None and not tower.output_tokens else None


def encode_tokens(model: Model, tokens_BL: Tensor) -> Tensor:
    """Do the same for tokens on the model's device, without trimming: no shape depends on the tokens' values."""
    if isinstance(model, Clip):
        return model.encode_tokens(tokens_BL)
    tower = _causal_tower(model)
    if tower is None:
        whole: Tensor = model.encode_text(tokens_BL)
        return whole
    length = tokens_BL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    x_BLd = tower.token_embedding(tokens_BL).to(dtype) + tower.positional_embedding[:length].to(dtype)
    mask_LL = tower.attn_mask[:length, :length].to(dtype)
    compute = getattr(tower.transformer, COMPILED_BLOCK, causal_block)
    for block in tower.transformer.resblocks:
        x_BLd = run_block(compute, tower.transformer.grad_checkpointing, block, x_BLd, mask_LL)
    x_BLd = tower.ln_final(x_BLd)
    return _project(_at_end_of_text(x_BLd, tokens_BL), tower.text_projection)


def longest_text(tokens_BT: Tensor, multiple: int = 1) -> int:
    """Return the number of tokens up to and including the last end-of-text of the batch, rounded up to a multiple.

    Tokens belong on the CPU here: on another device this would wait for all that is queued there.
    """
    length = int(tokens_BT.argmax(dim=1).max()) + 1
    return min(-(-length // multiple) * multiple, tokens_BT.shape[1])


def length_multiple(device: torch.device) -> int:
    """Return what lengths of texts are rounded up to a multiple of, for a model on a device."""
    return LENGTHS_ON_CUDA if device.type == "cuda" else 1


def without_padding(tokens_BT: Tensor, device: torch.device) -> Tensor:
    """Cut the padding after the longest text (`longest_text`), and move what remains to a device."""
    return to_device(tokens_BT[:, : longest_text(tokens_BT, length_multiple(device))], device)


def _at_end_of_text(x_BLd: Tensor, tokens_BL: Tensor) -> Tensor:
    return x_BLd[torch.arange(tokens_BL.shape[0], device=tokens_BL.device), tokens_BL.argmax(dim=1)]


def _project(x_Bd: Tensor, projection: nn.Linear | Tensor | None) -> Tensor:
    if projection is None:
        return x_Bd
    if isinstance(projection, nn.Linear):
        return F.linear(x_Bd, projection.weight, projection.bias)
    return x_Bd @ projection


def normalized(x_BD: Tensor) -> Tensor:
    """Scale embeddings to length 1, in fp32 or finer."""
    return F.normalize(fp32(x_BD), dim=-1)


class TwoTowers(nn.Module):
    """A CLIP model as one call, so that a data-parallel wrapper sees both towers, the logit scale and the bias."""

    def __init__(self, clip: Model) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images_BCHW: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return image_BD and text_BD, L2-normalised in fp32, the similarity multiplier, and the bias, 0 without one (scalars).

        Padding is not trimmed here: the training stream has done it, on the CPU.
        """
        image_BD = normalized(self.clip.encode_image(images_BCHW))
        text_BD = normalized(encode_tokens(self.clip, tokens_BL))
        return image_BD, text_BD, *scale_and_bias(self.clip)


def scale_and_bias(model: Model) -> tuple[Tensor, Tensor]:
    """Return a model's similarity multiplier, and the bias of the sigmoid loss, 0 without one (scalars)."""
    scale, bias = model.logit_scale.exp().reshape(()), getattr(model, "logit_bias", None)
    return scale, torch.zeros_like(scale, requires_grad=False) if bias is None else bias.reshape(())

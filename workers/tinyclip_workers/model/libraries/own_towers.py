"""Models of libraries in our own towers, to inherit weights from: SigLIP's, and the folders of transformers.

`own_layout` returns None for all others. Where it returns a layout, towers with the tensors of `own_state` compute the same.

Shapes: d width of a tower, H heads of width h, E embedding size.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from open_clip.transformer import TextTransformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from tinyclip.schemas.layouts import AnyLayout, Architecture, ImageLayout, Layout, PoolLayout, TextLayout
from torch import Tensor, nn

from tinyclip_workers.model.architecture import has_logit_bias
from tinyclip_workers.model.blocks import NORM_EPS
from tinyclip_workers.model.summary import meta_model, state_shapes
from tinyclip_workers.model.towers import SIGLIP_EPS

State = dict[str, Tensor]

TIMM_NAMES = {
    r"^visual\.trunk\.pos_embed$": "visual.positional_embedding",
    r"^visual\.trunk\.patch_embed\.proj\.": "visual.conv1.",
    r"^visual\.trunk\.blocks\.": "visual.transformer.resblocks.",
    r"^visual\.trunk\.norm\.": "visual.ln_post.",
    r"^visual\.trunk\.attn_pool\.proj\.": "visual.pool.out_proj.",
    r"^visual\.trunk\.attn_pool\.norm\.": "visual.pool.ln.",
    r"^visual\.trunk\.attn_pool\.": "visual.pool.",
    r"\.norm([12])\.": r".ln_\1.",
    r"\.attn\.qkv\.": ".attn.in_proj_",
    r"\.attn\.proj\.": ".attn.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"^text\.": "",
}
"""From the names of open_clip's SigLIP to ours."""
TRANSFORMERS_NAMES = {
    r"^vision_model\.embeddings\.class_embedding$": "visual.class_embedding",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "visual.positional_embedding",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"^vision_model\.pre_layrnorm\.": "visual.ln_pre.",
    r"^vision_model\.post_layernorm\.": "visual.ln_post.",
    r"^vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
    r"^vision_model\.head\.probe$": "visual.pool.latent",
    r"^vision_model\.head\.attention\.in_proj_": "visual.pool.qkv.",
    r"^vision_model\.head\.attention\.out_proj\.": "visual.pool.out_proj.",
    r"^vision_model\.head\.layernorm\.": "visual.pool.ln.",
    r"^vision_model\.head\.": "visual.pool.",
    r"^visual_projection\.weight$": "visual.proj.weight",
    r"^text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight$": "positional_embedding",
    r"^text_model\.final_layer_norm\.": "ln_final.",
    r"^text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"^text_model\.head\.": "text_projection.",
    r"\.layer_norm([12])\.": r".ln_\1.",
    r"\.self_attn\.": ".attn.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
}
"""From the names of transformers to ours."""
ACTIVATIONS = {"quick_gelu": "quick", "gelu": "exact", "gelu_pytorch_tanh": "tanh"}
"""Of transformers' configurations."""


def own_layout(layout: AnyLayout) -> Layout | None:
    """Return the layout of our towers for a model that they can compute; None for any other.

    That is any `Layout`, open_clip's SigLIP with attention pooling, and transformers' CLIPModel and SiglipModel.
    """
    return layout if isinstance(layout, Layout) else _own_layout(layout.model_dump_json())


@lru_cache(maxsize=64)
def _own_layout(document: str) -> Layout | None:
    architecture = Architecture.model_validate_json(document)
    describe: Callable[[Architecture], Layout | None] = (
        _layout_of_open_clip if architecture.library == "open_clip" else _layout_of_transformers
    )
    found = describe(architecture)
    if found is None:
        return None
    with torch.device("meta"):
        names = own_state(architecture, {name: torch.empty(shape) for name, shape in state_shapes(architecture).items()})
    shapes = {name: tuple(tensor.shape) for name, tensor in names.items()}
    return found if shapes == state_shapes(found) else None  # a tensor more is a part that our towers do not have


def own_state(layout: AnyLayout, state: Mapping[str, Tensor]) -> State:
    """Return the state dict of our towers for a model that has an `own_layout`. Tensors may be shared."""
    if isinstance(layout, Layout):
        return dict(state)
    names = TIMM_NAMES if layout.library == "open_clip" else TRANSFORMERS_NAMES
    found = {_renamed(name, names): tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    for name in [name for name in found if ".attn.q_proj." in name]:
        parts = [found.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        found[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    for name in ("text_projection", "visual.proj"):
        if f"{name}.weight" in found:
            found[name] = found.pop(f"{name}.weight").T
    if "text_projection.bias" in found:
        found["text_projection_bias"] = found.pop("text_projection.bias")
    for name in ("logit_scale", "logit_bias"):
        if name in found:
            found[name] = found[name].reshape(())
    if "visual.pool.latent" in found:
        _convert_pooling(found)
    if "text_projection" not in found:  # as in one of SigLIP's sizes
        width_d = found["ln_final.bias"]
        found["text_projection"], found["text_projection_bias"] = _identity(width_d), torch.zeros_like(width_d)
    return found


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for pattern, replacement in names.items():
        name = re.sub(pattern, replacement, name)
    return name


def _convert_pooling(found: State) -> None:
    """Compute the query of SigLIP's pooling, which does not depend on the image, and separate keys and values."""
    pool, latent_d = "visual.pool.", found.pop("visual.pool.latent").flatten()
    found["visual.positional_embedding"] = found["visual.positional_embedding"].flatten(0, -2)
    parts: dict[str, list[Tensor]] = {}
    for kind in ("weight", "bias"):
        if f"{pool}qkv.{kind}" in found:
            parts[kind] = list(found.pop(f"{pool}qkv.{kind}").chunk(3))
        else:
            parts[kind] = [found.pop(f"{pool}q.{kind}"), *found.pop(f"{pool}kv.{kind}").chunk(2)]
        found[f"{pool}k_proj.{kind}"], found[f"{pool}v_proj.{kind}"] = parts[kind][1:]
    found[f"{pool}query"] = parts["weight"][0] @ latent_d + parts["bias"][0]
    found["visual.proj"] = _identity(latent_d)


def _identity(like_d: Tensor) -> Tensor:
    return torch.eye(len(like_d), dtype=like_d.dtype, device=like_d.device)


def _layout_of_open_clip(architecture: Architecture) -> Layout | None:
    """Return the layout of SigLIP's towers, whose sizes timm knows by the name of the image tower."""
    vision = architecture.config["vision_cfg"]
    if vision.get("timm_pool") != "map" or vision.get("timm_proj") not in ("none", "", None):
        return None
    model: Any = meta_model(architecture)
    text: Any = getattr(model, "text", None)
    trunk: Any = getattr(model.visual, "trunk", None)
    if not isinstance(text, TextTransformer) or not _pools_as_siglip(trunk):
        return None
    reads_last = text.attn_mask is None and text.pool_type == "last" and not text.use_pad_mask and text.cls_emb is None
    if not reads_last or {text.ln_final.eps, trunk.norm.eps} != {SIGLIP_EPS}:
        return None
    block, text_block = trunk.blocks[0], text.transformer.resblocks[0]
    image_gelu, text_gelu = _gelu(block.mlp.act), _gelu(text_block.mlp.gelu)
    if image_gelu is None or text_gelu is None:
        return None
    image = ImageLayout(
        kind="vit", image_size=architecture.image_size, patch_size=trunk.patch_embed.patch_size[0],
        **_image_sizes(trunk.embed_dim, len(trunk.blocks), block.attn.num_heads, block.mlp.fc1.out_features),
        pool=PoolLayout(width=trunk.embed_dim, heads=trunk.attn_pool.num_heads, mlp=trunk.attn_pool.mlp.fc1.out_features),
        tanh_gelu=image_gelu == "tanh",
    )  # fmt: skip
    layers, width = len(text.transformer.resblocks), text.ln_final.normalized_shape[0]
    sizes = _text_sizes(width, layers, text_block.attn.num_heads, text_block.mlp.c_fc.out_features)
    return Layout(
        embed_dim=architecture.embed_dim, logit_bias=has_logit_bias(architecture), image=image,
        text=TextLayout(
            context_length=architecture.context_length, vocab_size=architecture.vocab_size, **sizes,
            bidirectional=True, tanh_gelu=text_gelu == "tanh",
        ),
    )  # fmt: skip


def _pools_as_siglip(trunk: Any) -> bool:
    """Return whether an image tower is a plain ViT of timm, but for its pooling by one learned query."""
    if not isinstance(trunk, VisionTransformer) or trunk.pos_embed is None or not all(type(b.mlp) is Mlp for b in trunk.blocks):
        return False
    pool: Any = trunk.attn_pool
    one_query = isinstance(pool, AttentionPoolLatent) and pool.latent_len == 1 and isinstance(pool.q, nn.Linear)
    return one_query and pool.pool == "token" and pool.mlp is not None


def _gelu(activation: nn.Module) -> str | None:
    """Return `exact` or `tanh`; None for any other activation."""
    if type(activation).__name__ == "GELUTanh":  # timm's
        return "tanh"
    if not isinstance(activation, nn.GELU):
        return None
    return "tanh" if activation.approximate == "tanh" else "exact"


def _layout_of_transformers(architecture: Architecture) -> Layout | None:
    model: Any = meta_model(architecture)
    vision, text = model.config.vision_config, model.config.text_config
    siglip = architecture.config["model_type"] == "siglip"
    gelus = [ACTIVATIONS.get(tower.hidden_act) for tower in (vision, text)]
    known = {"exact", "tanh"} if siglip else {"exact", "quick"}
    alike = siglip or (gelus[0] == gelus[1] and model.trims_padding)
    eps = SIGLIP_EPS if siglip else NORM_EPS
    if not set(gelus) <= known or not alike or {vision.layer_norm_eps, text.layer_norm_eps} != {eps}:
        return None
    pool = PoolLayout(width=vision.hidden_size, heads=vision.num_attention_heads, mlp=vision.intermediate_size)
    image, texts = ((each.hidden_size, each.num_hidden_layers, each.num_attention_heads, each.intermediate_size)
                    for each in (vision, text))  # fmt: skip
    return Layout(
        embed_dim=architecture.embed_dim, quick_gelu=gelus[0] == "quick", logit_bias=has_logit_bias(architecture),
        image=ImageLayout(
            kind="vit", image_size=vision.image_size, patch_size=vision.patch_size, **_image_sizes(*image),
            pool=pool if siglip else None, tanh_gelu=gelus[0] == "tanh",
        ),
        text=TextLayout(
            context_length=architecture.context_length, vocab_size=architecture.vocab_size, **_text_sizes(*texts),
            bidirectional=siglip, tanh_gelu=gelus[1] == "tanh",
        ),
    )  # fmt: skip


def _image_sizes(width: int, layers: int, heads: int, mlp: int) -> dict[str, Any]:
    return {**_text_sizes(width, layers, heads, mlp), "layers": [layers]}


def _text_sizes(width: int, layers: int, heads: int, mlp: int) -> dict[str, Any]:
    return {"width": width, "layers": layers, "head_width": width // heads, "heads": [heads] * layers, "mlp": [mlp] * layers}

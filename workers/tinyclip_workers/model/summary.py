"""Parameters, shapes and multiply-accumulates of a model, from its layout alone.

Products are counted by formula for our layouts, and in a run without memory for any other architecture.
"""

import copy
import json
from functools import lru_cache

import torch
from tinyclip.schemas.layouts import AnyLayout, Architecture, ImageLayout, Layout, StudentSummary
from torch import nn

from tinyclip_workers.model.architecture import any_layout, build_clip
from tinyclip_workers.model.towers import Model


def summarize(layout: AnyLayout) -> StudentSummary:
    """Count parameters (on the meta device, without memory) and multiply-accumulates of a layout.

    Raises UnsupportedArchitecture. Cached: a search asks for the same sizes again and again.
    """
    return _cached_summary(layout.model_dump_json()).model_copy(update={"layout": layout})


@lru_cache(maxsize=4096)
def _cached_summary(document: str) -> StudentSummary:
    layout = any_layout(json.loads(document))
    model = meta_model(layout)
    image = sum(p.numel() for p in model.visual.parameters())
    scalars = sum(p.numel() for p in (model.logit_scale, getattr(model, "logit_bias", None)) if p is not None)
    text = sum(p.numel() for p in model.parameters()) - image - scalars
    return StudentSummary(
        image_params=image,
        text_params=text,
        text_params_without_embedding=text - _token_embedding(model, layout),
        macs=image_macs(layout) + text_macs(layout),
        layout=layout,
    )


def _token_embedding(model: Model, layout: AnyLayout) -> int:
    """Return the numbers in the table of token embeddings, the largest one of a library's model."""
    if isinstance(layout, Layout):
        return int(model.token_embedding.weight.numel())
    decoder = getattr(model, "text_decoder", None)
    others = set() if decoder is None else set(decoder.modules())
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module not in others]
    return max((table.weight.numel() for table in tables), default=0)


def state_shapes(layout: AnyLayout) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in the state dict of a layout's model."""
    return {name: tuple(tensor.shape) for name, tensor in meta_model(layout).state_dict().items()}


def meta_model(layout: AnyLayout) -> Model:
    """Return a layout's model without memory, shapes only; not to be changed. Cached: building takes a moment."""
    return _cached_meta_model(layout.model_dump_json())


@lru_cache(maxsize=64)
def _cached_meta_model(layout: str) -> Model:
    with torch.device("meta"):
        return build_clip(any_layout(json.loads(layout)))


def image_macs(layout: AnyLayout) -> int:
    """Count multiply-accumulates of encoding one image: convolutions and matrix products."""
    if isinstance(layout, Architecture):
        return _counted_macs(layout.model_dump_json())[0]
    image = layout.image
    if image.kind == "resnet":
        return _resnet_macs(image, layout.embed_dim)
    assert image.patch_size is not None
    assert image.heads is not None
    assert image.mlp is not None
    patches = (image.image_size // image.patch_size) ** 2
    stem = patches * 3 * image.patch_size**2 * image.width
    if (pool := image.pool) is not None:
        blocks = _transformer_macs(patches, image.width, image.head_width, image.heads, image.mlp)
        read = 2 * patches * (image.width + 1) * pool.heads * image.head_width  # keys and values, q.k and attention.v
        return stem + blocks + read + pool.width * (pool.heads * image.head_width + 2 * pool.mlp + layout.embed_dim)
    blocks = _transformer_macs(patches + 1, image.width, image.head_width, image.heads, image.mlp)
    return stem + blocks + image.width * layout.embed_dim


def text_macs(layout: AnyLayout) -> int:
    """Count multiply-accumulates of encoding one text of full context length."""
    if isinstance(layout, Architecture):
        return _counted_macs(layout.model_dump_json())[1]
    text = layout.text
    blocks = _transformer_macs(text.context_length, text.width, text.head_width, text.heads, text.mlp)
    return blocks + text.width * layout.embed_dim


def _transformer_macs(tokens: int, width: int, head_width: int, heads: list[int], mlp: list[int]) -> int:
    total = 0
    for n_heads, units in zip(heads, mlp, strict=True):
        inner = n_heads * head_width
        total += 4 * tokens * width * inner  # q, k, v and the output projection
        total += 2 * tokens * tokens * inner  # q.k and attention.v; the causal mask saves nothing
        total += 2 * tokens * width * units
    return total


def _resnet_macs(image: ImageLayout, embed_dim: int) -> int:
    """Count for open_clip's ModifiedResNet: three stem convolutions, four stages of bottlenecks, attention pooling."""
    width, side = image.width, image.image_size // 2
    half = width // 2
    total = side**2 * 9 * (3 * half + half * half + half * width)
    side //= 2
    channels = width
    for stage, blocks in enumerate(image.layers):
        planes = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            total += side**2 * (channels * planes + 9 * planes * planes)
            side //= stride
            total += side**2 * planes * planes * 4
            if block == 0:
                total += side**2 * channels * planes * 4
            channels = planes * 4
    return total + _attention_pool_macs(side**2 + 1, channels, embed_dim)


def _attention_pool_macs(tokens: int, width: int, embed_dim: int) -> int:
    """Count every token as a query, as open_clip computes it, though only the first is read."""
    return tokens * width * (3 * width + embed_dim) + 2 * tokens * tokens * width


@lru_cache(maxsize=64)
def _counted_macs(layout: str) -> tuple[int, int]:
    """Count the products of a library's model by running it without memory: of an image, and of a text."""
    from torch.utils.flop_counter import FlopCounterMode

    architecture, model = Architecture.model_validate_json(layout), copy.deepcopy(_cached_meta_model(layout)).eval()
    model.requires_grad_(False)
    side, context = architecture.image_size, architecture.context_length
    inputs = {
        model.encode_image: torch.zeros(1, 3, side, side, device="meta"),
        model.encode_text: torch.zeros(1, context, dtype=torch.long, device="meta"),
    }
    counts = []
    with torch.device("meta"), torch.no_grad():
        for encode, value in inputs.items():
            with FlopCounterMode(display=False) as counter:
                try:
                    encode(value)
                except RuntimeError:  # towers of transformers that read values, as of padding, do not run without memory
                    counts.append(context * _products_of_a_token(model))
                    continue
            counts.append(int(counter.get_total_flops()) // 2)
    return counts[0], counts[1]


def _products_of_a_token(model: Model) -> int:
    """Return the weights of a text tower's matrices: a product for each and each token. Attention, a few percent, is left out."""
    tower: nn.Module = model.text  # type: ignore[assignment]  # a library's model has it
    layers = [module for module in tower.modules() if isinstance(module, nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)

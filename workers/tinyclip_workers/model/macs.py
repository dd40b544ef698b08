"""Multiply-accumulates of one image and of one text, from the layout alone.

Counted: convolutions and matrix products. Not counted: norms, activations, softmax, biases, pooling.
"""

from tinyclip.schemas.layouts import ImageLayout, Layout


def image_macs(layout: Layout) -> int:
    """Multiply-accumulates of encoding one image."""
    image = layout.image
    if image.kind == "resnet":
        return _resnet_macs(image, layout.embed_dim)
    assert image.patch_size is not None
    assert image.heads is not None
    assert image.mlp is not None
    patches = (image.image_size // image.patch_size) ** 2
    stem = patches * 3 * image.patch_size**2 * image.width
    blocks = _transformer_macs(patches + 1, image.width, image.head_width, image.heads, image.mlp)
    return stem + blocks + image.width * layout.embed_dim


def text_macs(layout: Layout) -> int:
    """Multiply-accumulates of encoding one text of full context length."""
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
    """open_clip's ModifiedResNet: three stem convolutions, four stages of bottlenecks, attention pooling."""
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
    """Every token is a query, though only the first is read: that is what open_clip computes."""
    return tokens * width * (3 * width + embed_dim) + 2 * tokens * tokens * width

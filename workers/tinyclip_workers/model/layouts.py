"""Layouts of one tower, from a spec and the tower that it inherits from, and the published architectures by name."""

import difflib
import math

from tinyclip.schemas.layouts import ImageLayout, Layout, PoolLayout, TextLayout
from tinyclip.schemas.spec import ImageTower, TextTower

HEAD_WIDTH = 64
MLP_RATIO = 4.0
IMAGE_SIZE = 224
CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408


class ImpossibleStudent(ValueError):
    """A student that cannot be built; `field` is the place in the student spec, for example `image/layers`."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.value, self.message = field, value, message


def image_layout(tower: ImageTower | None, parent: ImageLayout | None) -> ImageLayout:
    if tower is None or tower == ImageTower():
        if parent is None:
            raise ImpossibleStudent("image", None, "is missing and there is no model to inherit it from; give layers and width")
        return parent
    if tower.layers is not None:
        kind = "vit" if isinstance(tower.layers, int) else "resnet"
    elif parent is not None:
        kind = parent.kind
    else:
        raise ImpossibleStudent("image/layers", None, "is missing; give a number (ViT) or four numbers (ResNet)")
    return _vit_layout(tower, parent) if kind == "vit" else _resnet_layout(tower, parent)


def _vit_layout(tower: ImageTower, parent: ImageLayout | None) -> ImageLayout:
    image_size = tower.image_size or (parent.image_size if parent is not None else IMAGE_SIZE)
    if parent is not None and parent.kind != "vit":
        parent = None
    layers = tower.layers if tower.layers is not None else parent.layers[0] if parent is not None else None
    assert isinstance(layers, int)  # the kind was decided by it
    if layers < 1:
        raise ImpossibleStudent("image/layers", layers, "must be at least 1")
    width = tower.width or (parent.width if parent is not None else None)
    patch_size = tower.patch_size or (parent.patch_size if parent is not None else None)
    if width is None:
        raise ImpossibleStudent("image/width", None, "is missing and there is no ViT to inherit it from; give it")
    if patch_size is None:
        raise ImpossibleStudent(
            "image/patch_size", None, "is missing and there is no ViT to inherit it from; give it, or four layers for a ResNet"
        )
    if image_size % patch_size:
        raise ImpossibleStudent(
            "image/patch_size", patch_size, f"does not divide the image size {image_size}; choose one of {_divisors(image_size)}"
        )
    head_width = tower.head_width or (parent.head_width if parent is not None else HEAD_WIDTH)
    if width % head_width:
        field, value = ("image/width", width) if tower.width else ("image/head_width", head_width)
        raise ImpossibleStudent(
            field, value, f"width {width} is not a multiple of head_width {head_width}; {_nearest(width, head_width)}"
        )
    mlp = _mlp_width("image", tower.mlp_ratio, width, parent)
    return ImageLayout(
        kind="vit",
        image_size=image_size,
        width=width,
        layers=[layers],
        head_width=head_width,
        patch_size=patch_size,
        heads=[width // head_width] * layers,
        mlp=[mlp] * layers,
        pool=_pool_layout(parent, width // head_width, mlp),
        tanh_gelu=parent is not None and parent.tanh_gelu,
    )


def _pool_layout(parent: ImageLayout | None, heads: int, mlp: int) -> PoolLayout | None:
    """Return attention pooling as wide as the parent's, with the heads and MLP units of one of the student's blocks."""
    if parent is None or parent.pool is None:
        return None
    return PoolLayout(width=parent.pool.width, heads=min(heads, parent.pool.heads), mlp=min(mlp, parent.pool.mlp))


def _resnet_layout(tower: ImageTower, parent: ImageLayout | None) -> ImageLayout:
    image_size = tower.image_size or (parent.image_size if parent is not None else IMAGE_SIZE)
    if parent is not None and parent.kind != "resnet":
        parent = None
    layers = list(tower.layers) if isinstance(tower.layers, tuple) else parent.layers if parent is not None else []
    if min(layers) < 1:
        raise ImpossibleStudent("image/layers", layers, "every stage of a ResNet needs at least one bottleneck")
    width = tower.width or (parent.width if parent is not None else None)
    if width is None:
        raise ImpossibleStudent("image/width", None, "is missing and there is no ResNet to inherit it from; give it")
    for field in ("patch_size", "mlp_ratio"):
        if getattr(tower, field) is not None:
            raise ImpossibleStudent(f"image/{field}", getattr(tower, field), "a ResNet has none; remove it")
    if image_size % 32:
        raise ImpossibleStudent("image/image_size", image_size, f"a ResNet needs a multiple of 32; {_nearest(image_size, 32)}")
    head_width = tower.head_width or (parent.head_width if parent is not None else HEAD_WIDTH)
    if width % 2 or width * 32 % head_width:
        step = math.lcm(2, head_width // math.gcd(32, head_width))
        raise ImpossibleStudent(
            "image/width",
            width,
            f"a ResNet's width must be even and 32 x width a multiple of head_width {head_width}; {_nearest(width, step)}",
        )
    return ImageLayout(kind="resnet", image_size=image_size, width=width, layers=layers, head_width=head_width)


def text_layout(tower: TextTower | None, parent: TextLayout | None) -> TextLayout:
    if tower is None or tower == TextTower():
        if parent is None:
            raise ImpossibleStudent("text", None, "is missing and there is no model to inherit it from; give layers and width")
        return parent
    layers = tower.layers or (parent.layers if parent is not None else None)
    width = tower.width or (parent.width if parent is not None else None)
    for field, value in (("layers", layers), ("width", width)):
        if value is None:
            raise ImpossibleStudent(f"text/{field}", None, "is missing and there is no model to inherit it from; give it")
    assert layers is not None
    assert width is not None
    heads = _text_heads(tower, width, parent)
    mlp = _mlp_width("text", tower.mlp_ratio, width, parent)
    return TextLayout(
        context_length=tower.context_length or (parent.context_length if parent is not None else CONTEXT_LENGTH),
        vocab_size=tower.vocab_size or (parent.vocab_size if parent is not None else VOCAB_SIZE),
        width=width,
        layers=layers,
        head_width=width // heads,
        heads=[heads] * layers,
        mlp=[mlp] * layers,
        bidirectional=parent is not None and parent.bidirectional,
        tanh_gelu=parent is not None and parent.tanh_gelu,
    )


def _text_heads(tower: TextTower, width: int, parent: TextLayout | None) -> int:
    if tower.heads is not None:
        if width % tower.heads:
            raise ImpossibleStudent("text/heads", tower.heads, f"do not divide the width {width}; try {_divisors(width)}")
        return tower.heads
    head_width = parent.head_width if parent is not None else HEAD_WIDTH
    if width % head_width:
        raise ImpossibleStudent(
            "text/width", width, f"is not a multiple of the head width {head_width}; {_nearest(width, head_width)}, or give heads"
        )
    return width // head_width


def _mlp_width(tower: str, ratio: float | None, width: int, parent: ImageLayout | TextLayout | None) -> int:
    """Return the MLP units of each block, from the given ratio or the parent's."""
    if ratio is None and parent is not None and parent.mlp:
        if len(set(parent.mlp)) > 1:
            raise ImpossibleStudent(
                f"{tower}/mlp_ratio", None, "the MLP widths of the model it inherits from differ by layer; give mlp_ratio"
            )
        return max(1, parent.mlp[0] * width // parent.width)
    units = int(width * (ratio or MLP_RATIO))
    if units < 1:
        raise ImpossibleStudent(f"{tower}/mlp_ratio", ratio, f"gives no MLP unit at width {width}; raise it")
    return units


def _divisors(number: int) -> str:
    found = [d for d in range(2, number) if number % d == 0 and d <= 128]
    return ", ".join(map(str, found)) or str(number)


def _nearest(value: int, step: int) -> str:
    below, above = value // step * step, (value // step + 1) * step
    return f"try {below} or {above}" if below else f"try {above}"


def preset_layout(name: str) -> Layout:
    """Return a published student or teacher by its name. Raises ImpossibleStudent for any other name."""
    if name in PRESETS:
        return PRESETS[name]
    if name in AUTO_PRESETS:
        raise ImpossibleStudent(
            "preset", name, "was pruned layer by layer: its shape is only in its checkpoint; choose a manual preset"
        )
    close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]}?" if close else ""
    raise ImpossibleStudent("preset", name, f"is not a known preset; {hint} Known: {', '.join(PRESETS)}")


def _published(embed_dim: int, image: ImageTower, text_width: int, text_layers: int) -> Layout:
    text = TextTower(width=text_width, layers=text_layers)
    return Layout(embed_dim=embed_dim, image=image_layout(image, None), text=text_layout(text, None))


PRESETS: dict[str, Layout] = {
    "TinyCLIP-ViT-39M-16-Text-19M": _published(512, ImageTower(patch_size=16, width=512, layers=12), 512, 6),
    "TinyCLIP-ViT-8M-16-Text-3M": _published(512, ImageTower(patch_size=16, width=256, layers=10), 256, 3),
    "TinyCLIP-ViT-61M-32-Text-29M": _published(512, ImageTower(patch_size=32, width=640, layers=12), 512, 9),
    "TinyCLIP-ViT-40M-32-Text-19M": _published(512, ImageTower(patch_size=32, width=512, layers=12), 512, 6),
    "TinyCLIP-ResNet-30M-Text-29M": _published(1024, ImageTower(width=56, layers=(3, 4, 6, 3)), 512, 9),
    "TinyCLIP-ResNet-19M-Text-19M": _published(1024, ImageTower(width=44, layers=(3, 4, 6, 3)), 512, 6),
    "ViT-B-32": _published(512, ImageTower(patch_size=32, width=768, layers=12), 512, 12),
    "ViT-B-16": _published(512, ImageTower(patch_size=16, width=768, layers=12), 512, 12),
    "RN50": _published(1024, ImageTower(width=64, layers=(3, 4, 6, 3)), 512, 12),
}
"""Published uniform architectures and their teachers (METHOD section 10): 224 px, context 77, vocabulary 49408, head width 64."""

AUTO_PRESETS = (
    "TinyCLIP-auto-ViT-63M-32-Text-31M",
    "TinyCLIP-auto-ViT-45M-32-Text-18M",
    "TinyCLIP-auto-ViT-22M-32-Text-10M",
)
"""Published students that were pruned layer by layer; only their checkpoints have their layout."""

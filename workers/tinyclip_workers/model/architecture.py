"""From a student's spec to a layout, and from a layout to a model, its parameters and its multiply-accumulates.

A layout is explicit and complete: everything below works from it alone, never from tensor shapes.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from open_clip.model import CLIP
from tinyclip.schemas.layouts import ImageLayout, Layout, StudentSummary
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower

from tinyclip_workers.model.layouts import (
    CONTEXT_LENGTH,
    HEAD_WIDTH,
    IMAGE_SIZE,
    MLP_RATIO,
    VOCAB_SIZE,
    ImpossibleStudent,
    image_layout,
    preset_layout,
    text_layout,
)
from tinyclip_workers.model.towers import Clip, Model

Resolved = TypeVar("Resolved")


class UnsupportedArchitecture(ValueError):
    """An open_clip configuration other than a plain CLIP with a ViT or ResNet image tower."""


def resolve_layout(student: StudentSpec, parent: Layout | None) -> Layout:
    """Complete the layout of a student; what the spec omits comes from the parent (the model that it inherits from).

    Raises ImpossibleStudent, naming the field, for what is missing without a parent or does not fit together.
    `inherit.check_inheritable` checks that the student is small enough to inherit from the parent.
    """
    layout, problems = try_layout(student, parent)
    if layout is None:
        raise problems[0]
    return layout


def try_layout(student: StudentSpec, parent: Layout | None) -> tuple[Layout | None, list[ImpossibleStudent]]:
    """Do as `resolve_layout`, but return the problems of both towers instead of raising the first."""
    problems: list[ImpossibleStudent] = []

    def attempt(resolve: Callable[[], Resolved]) -> Resolved | None:
        try:
            return resolve()
        except ImpossibleStudent as error:
            problems.append(error)
            return None

    quick_gelu = parent.quick_gelu if parent is not None else False
    if student.preset is not None:
        preset = attempt(lambda: preset_layout(student.preset or ""))
        return (preset.model_copy(update={"quick_gelu": quick_gelu}) if preset is not None else None), problems
    embed_dim = attempt(lambda: _embed_dim(student, parent))
    image = attempt(lambda: image_layout(student.image, parent.image if parent is not None else None))
    text = attempt(lambda: text_layout(student.text, parent.text if parent is not None else None))
    if embed_dim is None or image is None or text is None:
        return None, problems
    if student.quick_gelu is not None:
        quick_gelu = student.quick_gelu
    return Layout(embed_dim=embed_dim, quick_gelu=quick_gelu, image=image, text=text), problems


def build_model(layout: Layout) -> CLIP:
    """Build an open_clip model of a uniform layout, initialised by open_clip with torch's global generator.

    Raises ValueError for any other layout.
    """
    return CLIP(**open_clip_config(layout))


def build_clip(layout: Layout) -> Model:
    """Build open_clip's model of a uniform layout, else ours, whose weights must be loaded before use."""
    return build_model(layout) if layout.is_uniform else Clip(layout)


def open_clip_config(layout: Layout) -> dict[str, Any]:
    """Return open_clip's `model_cfg` of a uniform layout. Raises ValueError for any other."""
    if not layout.is_uniform:
        raise ValueError("open_clip has one size for all blocks of a tower; those of this layout differ")
    image, text = layout.image, layout.text
    vision_cfg: dict[str, Any] = {"image_size": image.image_size, "width": image.width, "head_width": image.head_width}
    if image.kind == "resnet":
        vision_cfg |= {"layers": list(image.layers), "patch_size": None}
    else:
        assert image.mlp is not None
        vision_cfg |= {
            "layers": image.layers[0], "patch_size": image.patch_size, "mlp_ratio": _mlp_ratio(image.width, image.mlp[0]),
        }  # fmt: skip
    text_cfg = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads[0],
        "layers": text.layers,
        "mlp_ratio": _mlp_ratio(text.width, text.mlp[0]),
    }
    config: dict[str, Any] = {"embed_dim": layout.embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    return {**config, "quick_gelu": True} if layout.quick_gelu else config


def layout_from_config(model_cfg: dict[str, Any]) -> Layout:
    """Return the layout of an open_clip `model_cfg`. Raises UnsupportedArchitecture naming a setting that no layout has."""
    vision, text = dict(model_cfg["vision_cfg"]), dict(model_cfg["text_cfg"])
    _only_plain("", model_cfg, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"})
    _only_plain("vision_cfg.", vision, {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"})
    sizes = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
    _only_plain("text_cfg.", text, {*sizes, "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"})
    size, layers = vision.get("image_size", IMAGE_SIZE), vision.get("layers", 12)
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise UnsupportedArchitecture("vision_cfg.image_size has different sides; only square images are supported")
        size = size[0]
    heads = text.get("heads", 8)
    return Layout(
        embed_dim=model_cfg["embed_dim"],
        quick_gelu=bool(model_cfg.get("quick_gelu", False)),
        image=image_layout(
            ImageTower(
                layers=layers if isinstance(layers, int) else tuple(layers),
                width=vision.get("width", 768),
                head_width=vision.get("head_width", HEAD_WIDTH),
                mlp_ratio=vision.get("mlp_ratio", MLP_RATIO) if isinstance(layers, int) else None,
                patch_size=vision.get("patch_size", 16) if isinstance(layers, int) else None,
                image_size=size,
            ),
            None,
        ),
        text=text_layout(
            TextTower(
                layers=text.get("layers", 12),
                width=text.get("width", 512),
                heads=heads,
                mlp_ratio=text.get("mlp_ratio", MLP_RATIO),
                context_length=text.get("context_length", CONTEXT_LENGTH),
                vocab_size=text.get("vocab_size", VOCAB_SIZE),
            ),
            None,
        ),
    )


def summarize(layout: Layout) -> StudentSummary:
    """Count parameters (on the meta device, without memory) and multiply-accumulates of a layout."""
    model = _meta_model(layout)
    image = sum(p.numel() for p in model.visual.parameters())
    text = sum(p.numel() for p in model.parameters()) - image - model.logit_scale.numel()
    return StudentSummary(
        image_params=image,
        text_params=text,
        text_params_without_embedding=text - model.token_embedding.weight.numel(),
        macs=image_macs(layout) + text_macs(layout),
        layout=layout,
    )


def state_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in the state dict of a layout's model."""
    return {name: tuple(tensor.shape) for name, tensor in _meta_model(layout).state_dict().items()}


def _meta_model(layout: Layout) -> Model:
    """Build the model without memory, shapes only. Cached: building takes a moment and is needed often."""
    return _cached_meta_model(layout.model_dump_json())


@lru_cache(maxsize=64)
def _cached_meta_model(layout: str) -> Model:
    with torch.device("meta"):
        return build_clip(Layout.model_validate_json(layout))


def _mlp_ratio(width: int, units: int) -> float:
    """Return a ratio from which open_clip computes the same MLP width, `int(width * ratio)`."""
    ratio = units / width
    return ratio if int(width * ratio) == units else math.nextafter(ratio, math.inf)


def _only_plain(where: str, config: dict[str, Any], known: set[str]) -> None:
    for key, value in config.items():
        if key not in known and value not in (None, False):
            raise UnsupportedArchitecture(f"{where}{key[:80]} is set; only plain CLIP models with a ViT or ResNet are supported")


def _embed_dim(student: StudentSpec, parent: Layout | None) -> int:
    embed_dim = student.embed_dim or (parent.embed_dim if parent is not None else None)
    if embed_dim is None:
        raise ImpossibleStudent("embed_dim", None, "is missing and there is no model to inherit it from; give it")
    return embed_dim


def image_macs(layout: Layout) -> int:
    """Count multiply-accumulates of encoding one image: convolutions and matrix products."""
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
    """Count multiply-accumulates of encoding one text of full context length."""
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

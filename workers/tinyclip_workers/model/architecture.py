"""From a student's spec to a layout, and from a layout to a model, its parameters and its multiply-accumulates.

A layout is explicit and complete: everything below works from it alone, never from tensor shapes.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, TypeVar

import open_clip
import torch
from open_clip.model import CLIP
from tinyclip.schemas.layouts import AnyLayout, Architecture, Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower

from tinyclip_workers.model.layouts import (
    AUTO_PRESETS,
    CONTEXT_LENGTH,
    HEAD_WIDTH,
    IMAGE_SIZE,
    MLP_RATIO,
    PRESETS,
    VOCAB_SIZE,
    ImpossibleStudent,
    image_layout,
    preset_layout,
    text_layout,
)
from tinyclip_workers.model.libraries.open_clip_models import build_open_clip, describe_config
from tinyclip_workers.model.towers import INITIAL_LOGIT_BIAS, Clip, Model

Resolved = TypeVar("Resolved")


class UnsupportedArchitecture(ValueError):
    """A model that cannot be built, or that has no `Layout` where one is needed; the message has the reason and the remedy."""


def resolve_layout(student: StudentSpec, parent: AnyLayout | None) -> AnyLayout:
    """Complete the layout of a student; what the spec omits comes from the parent (the model that it inherits from).

    Raises ImpossibleStudent, naming the field, for what is missing without a parent or does not fit together.
    `inherit.check_inheritable` checks that the student is small enough to inherit from the parent.
    """
    layout, problems = try_layout(student, parent)
    if layout is None:
        raise problems[0]
    return layout


def try_layout(student: StudentSpec, parent: AnyLayout | None) -> tuple[AnyLayout | None, list[ImpossibleStudent]]:
    """Do as `resolve_layout`, but return the problems of both towers instead of raising the first.

    A parent of another architecture than ours gives its embedding size only.
    """
    problems: list[ImpossibleStudent] = []

    def attempt(resolve: Callable[[], Resolved]) -> Resolved | None:
        try:
            return resolve()
        except ImpossibleStudent as error:
            problems.append(error)
            return None

    plain = parent if isinstance(parent, Layout) else None
    quick_gelu = plain.quick_gelu if plain is not None else False
    if student.preset is not None:
        preset = attempt(lambda: named_layout(student))
        return (preset.model_copy(update={"quick_gelu": quick_gelu}) if isinstance(preset, Layout) else preset), problems
    embed_dim = attempt(lambda: _embed_dim(student, parent))
    image = attempt(lambda: image_layout(student.image, plain.image if plain is not None else None))
    text = attempt(lambda: text_layout(student.text, plain.text if plain is not None else None))
    if embed_dim is None or image is None or text is None:
        return None, problems
    if student.quick_gelu is not None:
        quick_gelu = student.quick_gelu
    bias = plain is not None and plain.logit_bias
    return Layout(embed_dim=embed_dim, quick_gelu=quick_gelu, logit_bias=bias, image=image, text=text), problems


def named_layout(student: StudentSpec) -> AnyLayout:
    """Return the layout of a preset, a published student or any architecture of open_clip, with the input sizes of the spec.

    A student reads CLIP's tokens, also with an architecture that has another tokenizer. Raises ImpossibleStudent.
    """
    name = student.preset or ""
    image_size = student.image.image_size if student.image is not None else None
    context_length = student.text.context_length if student.text is not None else None
    config = None if name in (*PRESETS, *AUTO_PRESETS) else open_clip.get_model_config(name)
    if config is None:
        layout = preset_layout(name)
        image = ImageTower(image_size=image_size) if image_size else None
        text = TextTower(context_length=context_length) if context_length else None
        towers = {"image": image_layout(image, layout.image), "text": text_layout(text, layout.text)}
        return layout.model_copy(update=towers)
    if config["text_cfg"].get("hf_model_name"):
        raise ImpossibleStudent("preset", name, "has a Hugging Face text tower, which can only teach here; choose another")
    for setting in ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"):
        if config["text_cfg"].pop(setting, None):
            config["text_cfg"]["vocab_size"] = VOCAB_SIZE
    config["vision_cfg"]["image_size"] = image_size or config["vision_cfg"].get("image_size", IMAGE_SIZE)
    config["text_cfg"]["context_length"] = context_length or config["text_cfg"].get("context_length", CONTEXT_LENGTH)
    if student.embed_dim is not None:
        config["embed_dim"] = student.embed_dim
    try:
        found = any_layout_from_config(config)
        side, context = found.image_size, found.context_length
        with torch.device("meta"), torch.no_grad():
            model = build_clip(found).eval()
            model.encode_image(torch.zeros(1, 3, side, side))
            model.encode_text(torch.zeros(1, context, dtype=torch.long))
    except (AssertionError, RuntimeError, ValueError) as error:
        message = f"cannot be built with these sizes: {str(error)[:300]}; leave them out"
        raise ImpossibleStudent("preset", name, message) from error
    return found


def build_model(layout: Layout) -> CLIP:
    """Build an open_clip model of a uniform layout, initialised by open_clip with torch's global generator.

    Raises ValueError for any other layout.
    """
    return CLIP(**open_clip_config(layout))


def build_clip(layout: AnyLayout) -> Model:
    """Build the library's model, of a uniform layout open_clip's; else ours, whose weights must be loaded before use.

    Raises UnsupportedArchitecture.
    """
    if isinstance(layout, Architecture):
        return _build_architecture(layout)
    return build_model(layout) if layout.is_uniform else Clip(layout)


def open_clip_config(layout: AnyLayout) -> dict[str, Any]:
    """Return open_clip's `model_cfg` of a uniform layout. Raises ValueError for any other."""
    if isinstance(layout, Architecture) and layout.library == "open_clip":
        return copy.deepcopy(layout.config)
    if isinstance(layout, Architecture):
        raise ValueError(f"open_clip cannot build this {layout.family}, which is a model of {layout.library}")
    if not layout.has_equal_blocks:
        raise ValueError("open_clip has one size for all blocks of a tower; those of this layout differ")
    if layout.is_siglip:
        raise ValueError("open_clip has towers like SigLIP's in fixed sizes only")
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
    if layout.logit_bias:
        config["init_logit_bias"] = INITIAL_LOGIT_BIAS
    return {**config, "quick_gelu": True} if layout.quick_gelu else config


def any_layout_from_config(model_cfg: dict[str, Any], text_config: dict[str, Any] | None = None) -> AnyLayout:
    """Return the layout of an open_clip `model_cfg`, or its architecture if it is not of the plain kind.

    `text_config`: of a Hugging Face text tower. Raises UnsupportedArchitecture.
    """
    try:
        return layout_from_config(model_cfg)
    except UnsupportedArchitecture:  # not of the plain kind
        return _architecture_from_config(model_cfg, text_config)


def _architecture_from_config(model_cfg: dict[str, Any], text_config: dict[str, Any] | None) -> Architecture:
    try:
        return describe_config(model_cfg, text_config)
    except ValueError as error:
        raise UnsupportedArchitecture(str(error)) from error


def transformers_architecture(config: dict[str, Any]) -> Architecture:
    """Return the architecture of a `config.json` of transformers. Raises UnsupportedArchitecture."""
    from tinyclip_workers.model.libraries.transformers_models import describe_transformers  # takes seconds

    try:
        return describe_transformers(config)
    except ValueError as error:
        raise UnsupportedArchitecture(str(error)) from error


def _build_architecture(layout: Architecture) -> Model:
    try:
        if layout.library == "open_clip":
            model: Model = build_open_clip(layout.config)
            return model
        from tinyclip_workers.model.libraries.transformers_models import build_transformers  # takes seconds

        model = build_transformers(layout.config)
        return model
    except ValueError as error:
        raise UnsupportedArchitecture(f"{layout.family}: {error}") from error


def layout_from_config(model_cfg: dict[str, Any]) -> Layout:
    """Return the layout of an open_clip `model_cfg`. Raises UnsupportedArchitecture naming a setting that no layout has."""
    vision, text = dict(model_cfg["vision_cfg"]), dict(model_cfg["text_cfg"])
    _only_plain("", model_cfg, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias"})
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
        logit_bias=model_cfg.get("init_logit_bias") is not None,
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


def has_logit_bias(layout: AnyLayout) -> bool:
    """Return whether a model was trained with the sigmoid loss."""
    if isinstance(layout, Layout):
        return layout.logit_bias
    return layout.config.get("init_logit_bias") is not None or layout.config.get("model_type") == "siglip"


def with_logit_bias(layout: AnyLayout) -> AnyLayout:
    """Return the layout of the same model with the bias of the sigmoid loss."""
    if isinstance(layout, Layout):
        return layout.model_copy(update={"logit_bias": True})
    return layout.model_copy(update={"config": {"init_logit_bias": INITIAL_LOGIT_BIAS, **layout.config}})


def any_layout(document: Any) -> AnyLayout:
    """Return a layout or an architecture from its JSON. Raises pydantic's ValidationError."""
    is_architecture = isinstance(document, dict) and "library" in document
    return Architecture.model_validate(document) if is_architecture else Layout.model_validate(document)


def _mlp_ratio(width: int, units: int) -> float:
    """Return a ratio from which open_clip computes the same MLP width, `int(width * ratio)`."""
    ratio = units / width
    return ratio if int(width * ratio) == units else math.nextafter(ratio, math.inf)


def _only_plain(where: str, config: dict[str, Any], known: set[str]) -> None:
    for key, value in config.items():
        if key not in known and value not in (None, False):
            raise UnsupportedArchitecture(f"{where}{key[:80]} is set, which a plain CLIP model with a ViT or ResNet has not")


def _embed_dim(student: StudentSpec, parent: AnyLayout | None) -> int:
    embed_dim = student.embed_dim or (parent.embed_dim if parent is not None else None)
    if embed_dim is None:
        raise ImpossibleStudent("embed_dim", None, "is missing and there is no model to inherit it from; give it")
    return embed_dim

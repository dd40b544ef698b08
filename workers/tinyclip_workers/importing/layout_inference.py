"""Determine the layout and activation of an imported model, and check its tensors against them.

The layout comes from the directory's configuration, else from the preset, else from the shapes of the tensors. Shapes are used
only for checkpoints of the official implementation: they do not contain the width of a head (64 by default) or the activation.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from pydantic import ValidationError
from tinyclip.schemas.imports import ImportOptions
from tinyclip.schemas.layouts import ImageLayout, Layout, StudentSummary, TextLayout

from tinyclip_workers.importing.source_files import ImportRefused
from tinyclip_workers.model.architecture import UnsupportedArchitecture, layout_from_config
from tinyclip_workers.model.files.folders import CONFIG_FILE, LAYOUT_FILE, config_layout
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.files.plausible import place_of, plausible_layout
from tinyclip_workers.model.layouts import AUTO_PRESETS, HEAD_WIDTH, PRESETS, ImpossibleStudent, preset_layout
from tinyclip_workers.model.summary import state_shapes

Shapes = Mapping[str, tuple[int, ...]]

AUTO_ORIGINAL = "ViT-B-32"
"""The model from which the published automatic students were pruned."""
SIZE_IN_NAME = re.compile(r"ViT-(\d+)M-32-Text-(\d+)M")
SIZE_MARGIN_M = 2


def find_layout(shapes: Shapes, configs: Mapping[str, dict[str, Any]], options: ImportOptions, *, official: bool) -> Layout:
    """Determine the expected layout, before its activation is resolved and before `expect_shapes` checks every tensor.

    Raises ImportRefused at the field that has to change.
    """
    preset = None if options.preset is None else architecture_layout(options.preset)
    if configs.keys() & {LAYOUT_FILE, CONFIG_FILE}:
        configured = _configured_layout(configs)
        if preset is not None and preset.model_copy(update={"quick_gelu": configured.quick_gelu}) != configured:
            message = f"differs from the directory's configuration; it has {_sizes(configured)}"
            raise ImportRefused("/preset", options.preset, message)
        return configured
    if preset is not None:
        return preset
    if not official and options.preset is None:
        raise ImportRefused(
            "/preset", None, "is required: tensors alone do not determine an architecture; name one of "
            f"{', '.join(PRESETS)}, {', '.join(AUTO_PRESETS)}, any architecture of open_clip, or import an open_clip directory"
        )
    if not official and "visual.class_embedding" not in shapes:
        raise ImportRefused("/preset", options.preset, "has a ViT as its image tower and this file does not; name another preset")
    head_width = options.head_width or HEAD_WIDTH
    return layout_of_shapes(shapes, head_width, options.text_head_width or head_width)


def architecture_layout(name: str) -> Layout | None:
    """Return the layout of a preset or open_clip architecture; None for an automatic preset. Raises ImportRefused."""
    if name in AUTO_PRESETS:
        return None
    config = None if name in PRESETS else open_clip.get_model_config(name.replace("/", "-"))
    try:
        return preset_layout(name) if config is None else layout_from_config(config)
    except ImpossibleStudent as error:
        raise ImportRefused("/preset", name, f"{error.message}; or any architecture of open_clip") from error
    except UnsupportedArchitecture as error:
        raise ImportRefused("/preset", name, str(error)) from error


def layout_of_shapes(shapes: Shapes, head_width: int, text_head_width: int) -> Layout:
    """Return the layout of a ViT and a text tower, each block as large as its tensors.

    Raises ImportRefused for tensors that do not form such a model.
    """
    if "visual.class_embedding" not in shapes:
        raise ImportRefused("/preset", None, "is required: a ResNet's layout cannot be inferred from tensors; name its preset")
    kernel, positions = _shape(shapes, "visual.conv1.weight", 4), _shape(shapes, "visual.positional_embedding", 2)
    grid = math.isqrt(positions[0] - 1)
    if grid * grid != positions[0] - 1:
        raise _unexpected_shape("visual.positional_embedding", positions, "it must have one row more than a square of patches")
    heads, mlp = _block_sizes(shapes, "visual.", head_width, "head_width")
    text_heads, text_mlp = _block_sizes(shapes, "", text_head_width, "text_head_width")
    context, width = _shape(shapes, "positional_embedding", 2)
    return Layout(
        embed_dim=_shape(shapes, "visual.proj", 2)[1],
        image=ImageLayout(
            kind="vit", image_size=grid * kernel[2], width=kernel[0], layers=[len(heads)], head_width=head_width,
            patch_size=kernel[2], heads=heads, mlp=mlp,
        ),
        text=TextLayout(
            context_length=context, vocab_size=_shape(shapes, "token_embedding.weight", 2)[0], width=width,
            layers=len(text_heads), head_width=text_head_width, heads=text_heads, mlp=text_mlp,
        ),
    )


def expect_shapes(shapes: Shapes, layout: Layout, options: ImportOptions) -> None:
    """Check that exactly the layout's tensors are present, in its shapes. Raises ImportRefused naming tensor and shapes."""
    reference = options.preset or "the model's configuration"
    expected = state_shapes(layout)
    for name in [*expected, *(name for name in shapes if name not in expected)]:
        actual, needed = shapes.get(name), expected.get(name)
        if actual == needed:
            continue
        found = f"has no {name}" if actual is None else f"has {name} of shape {actual}"
        required = f"{reference} has none" if needed is None else f"{reference} has {needed}"
        hint = _fitting_presets(shapes)
        raise ImportRefused("/preset", options.preset, f"does not fit: the file {found}, where {required}; {hint}")


def expect_auto_preset(layout: Layout, name: str) -> None:
    """Check that a layout can have been pruned from the published original. Raises ImportRefused."""
    full = PRESETS[AUTO_ORIGINAL]
    fixed = [
        ("visual.proj", (layout.image.width, layout.embed_dim), layout.embed_dim == full.embed_dim),
        ("visual.conv1.weight", (layout.image.width, 3, layout.image.patch_size, layout.image.patch_size),
         layout.image.patch_size == full.image.patch_size and layout.image.width <= full.image.width),
        ("visual.positional_embedding", None, layout.image.image_size == full.image.image_size),
        ("token_embedding.weight", (layout.text.vocab_size, layout.text.width),
         layout.text.vocab_size == full.text.vocab_size and layout.text.width <= full.text.width),
        ("positional_embedding", (layout.text.context_length, layout.text.width),
         layout.text.context_length == full.text.context_length),
    ]  # fmt: skip
    original_shapes = state_shapes(full)
    for tensor, shape, fits in fixed:
        if not fits:
            shape = shape or state_shapes(layout)[tensor]
            raise ImportRefused("/preset", name, f"does not fit: the file has {tensor} of shape {shape}, "
                                f"{name} was pruned from {AUTO_ORIGINAL}, which has {original_shapes[tensor]}")
    for prefix, tower, original in (("visual.", layout.image, full.image), ("", layout.text, full.text)):
        assert tower.heads and tower.mlp and original.heads and original.mlp  # noqa: PT018
        if len(tower.heads) > len(original.heads) or max(tower.heads) > original.heads[0] or max(tower.mlp) > original.mlp[0]:
            raise ImportRefused("/preset", name, f"does not fit: the file's {prefix}transformer has heads {tower.heads} and MLPs "
                                f"{tower.mlp}, {name} was pruned from {AUTO_ORIGINAL} with {original.heads} and {original.mlp}")


def size_warnings(summary: StudentSummary, preset: str) -> list[str]:
    """Return a warning for each tower whose size differs from the one in an automatic preset's name."""
    sizes_in_name = SIZE_IN_NAME.search(preset)
    if sizes_in_name is None:
        return []
    actual = (summary.image_params / 1e6, summary.text_params_without_embedding / 1e6)
    return [
        f"{tower} tower: {size:.1f}M parameters, {preset} names {nominal}M"
        for tower, size, nominal in zip(("image", "text"), actual, map(int, sizes_in_name.groups()), strict=True)
        if abs(size - nominal) > SIZE_MARGIN_M
    ]


def origin_config(origin: str) -> dict[str, Any]:
    """Return open_clip's configuration of `MODEL@TAG`: `quick_gelu`, `mean`, `std`. Raises ImportRefused."""
    model, at, tag = origin.partition("@")
    config: dict[str, Any] = get_pretrained_cfg(model.replace("/", "-"), tag) if at else {}
    if not config:
        tags = list_pretrained_tags_by_model(model.replace("/", "-"))
        hint = f"{model} has {', '.join(tags)}" if tags else "name it as MODEL@TAG, for example ViT-B-32@openai"
        raise ImportRefused("/origin", origin, f"does not name weights of open_clip; {hint}")
    return {**config, "quick_gelu": bool(config.get("quick_gelu")) or "quickgelu" in model.lower()}


def resolve_quick_gelu(
    layout: Layout, configs: Mapping[str, dict[str, Any]], options: ImportOptions, *, official: bool
) -> tuple[bool, str]:
    """Return whether the blocks use QuickGELU, and the source of that answer. Raises ImportRefused if there is none.

    The official implementation builds students without QuickGELU whatever their teacher uses, unless --force-quick-gelu is
    given (F18), and its published configurations do not give it. An @openai origin therefore does not decide for its files.
    """
    if options.quick_gelu is not None:
        return options.quick_gelu, "the request"
    if configs.keys() & {LAYOUT_FILE, CONFIG_FILE}:
        return layout.quick_gelu, LAYOUT_FILE if LAYOUT_FILE in configs else CONFIG_FILE
    if options.preset is not None and "quickgelu" in options.preset.lower():
        return True, f"the architecture {options.preset}"
    if options.origin is not None:
        of_origin = bool(origin_config(options.origin)["quick_gelu"])
        if not (official and of_origin):
            return of_origin, f"the origin {options.origin}"
    if official and options.preset is not None and options.preset.startswith("TinyCLIP-"):
        return False, f"the published configuration of {options.preset}"
    raise ImportRefused(
        "/quick_gelu", None,
        "is required: the file does not contain its model's activation, and the wrong one changes its embeddings; "
        "give true (--quick-gelu) for OpenAI's models and models derived from them, false (--gelu) for GELU"
        + ("" if official else ", or the origin of the weights, for example ViT-B-32@openai")
    )


def _configured_layout(configs: Mapping[str, dict[str, Any]]) -> Layout:
    try:
        if LAYOUT_FILE in configs:
            return plausible_layout(Layout.model_validate(configs[LAYOUT_FILE]))
        found = config_layout(configs[CONFIG_FILE], CONFIG_FILE)
        if isinstance(found, Layout):
            return found
        message = f"is a {found.family}; only plain CLIP models with a ViT or ResNet are imported, use its folder as it is"
        raise ImportRefused("/file", None, message)
    except ValidationError as error:
        message = f"has a {LAYOUT_FILE} that is not a layout{place_of(error)}; write it again"
        raise ImportRefused("/file", None, message) from error
    except (UnsupportedArchitecture, WeightsError) as error:
        raise ImportRefused("/file", None, f"has a configuration that cannot be used: {error}") from error


def _sizes(layout: Layout) -> str:
    image, text = layout.image, layout.text
    return f"embed_dim {layout.embed_dim}, image width {image.width} and text width {text.width}"


def _block_sizes(shapes: Shapes, prefix: str, head_width: int, field: str) -> tuple[list[int], list[int]]:
    """Return heads and MLP units of every block of a tower; 0 for a removed branch."""
    pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    count = max((int(found[1]) for found in map(pattern.match, shapes) if found), default=-1) + 1
    if not 1 <= count <= 1000:
        raise ImportRefused("/file", None, f"has no {prefix}transformer.resblocks.0 to {count}; a ViT with text tower is needed")
    heads, mlp = [], []
    for layer in range(count):
        block = f"{prefix}transformer.resblocks.{layer}."
        rows = shapes.get(f"{block}attn.in_proj_weight", (0,))[0]
        if rows % (3 * head_width):
            found = f"{block}attn.in_proj_weight has {rows} rows, not a multiple of 3 x {head_width}"
            raise ImportRefused(f"/{field}", head_width, f"does not fit: {found}; give the model's head width")
        heads.append(rows // (3 * head_width))
        mlp.append(shapes.get(f"{block}mlp.c_fc.weight", (0,))[0])
    return heads, mlp


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != axes:
        raise _unexpected_shape(name, shapes.get(name), f"it must have {axes} axes")
    return shapes[name]


def _unexpected_shape(name: str, shape: tuple[int, ...] | None, expected: str) -> ImportRefused:
    found = f"has no {name}" if shape is None else f"has {name} of shape {shape}"
    return ImportRefused("/file", None, f"{found}: {expected}")


def _fitting_presets(shapes: Shapes) -> str:
    fits = [name for name, layout in PRESETS.items() if state_shapes(layout) == dict(shapes)]
    return f"it fits {' or '.join(fits)}" if fits else "name the preset of this file"

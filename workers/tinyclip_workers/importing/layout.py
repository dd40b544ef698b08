"""What an imported model looks like: its directory's configuration, the preset that it is held to, or its tensors' shapes.

Shapes decide only where nothing else can: a checkpoint of the published program. They do not say the width of a head (64
unless told) and never which activation the blocks have.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from tinyclip.schemas.imports import ImportOptions
from tinyclip.schemas.layouts import ImageLayout, Layout, StudentSummary, TextLayout

from tinyclip_workers.importing.files import ImportRefused
from tinyclip_workers.model.architecture import UnsupportedArchitecture, layout_of, state_shapes
from tinyclip_workers.model.folders import CONFIG_FILE, LAYOUT_FILE, config_layout
from tinyclip_workers.model.presets import AUTO_PRESETS, PRESETS, preset_layout
from tinyclip_workers.model.tower_layouts import HEAD_WIDTH, ImpossibleStudent
from tinyclip_workers.model.weights import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

AUTO_ORIGINAL = "ViT-B-32"
"""What the published automatic students were pruned from."""
SIZE_IN_NAME = re.compile(r"ViT-(\d+)M-32-Text-(\d+)M")
SIZE_MARGIN_M = 2


def find_layout(shapes: Shapes, configs: Mapping[str, dict[str, Any]], options: ImportOptions, *, official: bool) -> Layout:
    """The layout that the tensors are to have; its activation is not decided yet.

    Raises ImportRefused, at the field that has to change; whether all tensors fit is `expect_shapes`' to say.
    """
    preset = None if options.preset is None else architecture(options.preset)
    if configs.keys() & {LAYOUT_FILE, CONFIG_FILE}:
        found = _configured(configs)
        if preset is not None and preset.model_copy(update={"quick_gelu": found.quick_gelu}) != found:
            raise ImportRefused("/preset", options.preset, f"is not what the directory's configuration describes: {found}")
        return found
    if preset is not None:
        return preset
    if not official and options.preset is None:
        raise ImportRefused(
            "/preset", None, "is needed: tensors alone do not say a model's shape; name one of "
            f"{', '.join(PRESETS)}, {', '.join(AUTO_PRESETS)}, any architecture of open_clip, or import an open_clip directory"
        )
    if not official and "visual.class_embedding" not in shapes:
        raise ImportRefused("/preset", options.preset, "has a ViT as its image tower, this file does not")
    head_width = options.head_width or HEAD_WIDTH
    return layout_of_shapes(shapes, head_width, options.text_head_width or head_width)


def architecture(name: str) -> Layout | None:
    """The layout of a preset or of an open_clip architecture; None for an automatic one. Raises ImportRefused."""
    if name in AUTO_PRESETS:
        return None
    config = None if name in PRESETS else open_clip.get_model_config(name.replace("/", "-"))
    try:
        return preset_layout(name) if config is None else layout_of(config)
    except ImpossibleStudent as error:
        raise ImportRefused("/preset", name, f"{error.message}; or any architecture of open_clip") from error
    except UnsupportedArchitecture as error:
        raise ImportRefused("/preset", name, str(error)) from error


def layout_of_shapes(shapes: Shapes, head_width: int, text_head_width: int) -> Layout:
    """The layout of a ViT and a text tower, each block as large as its tensors.

    Raises ImportRefused for tensors that do not make such a model.
    """
    if "visual.class_embedding" not in shapes:
        raise ImportRefused("/preset", None, "is needed: the shape of a ResNet is not read off its tensors; name it")
    kernel, positions = _shape(shapes, "visual.conv1.weight", 4), _shape(shapes, "visual.positional_embedding", 2)
    grid = math.isqrt(positions[0] - 1)
    if grid * grid != positions[0] - 1:
        raise _misfit("visual.positional_embedding", positions, "a square of patches and one more is needed")
    heads, mlp = _blocks(shapes, "visual.", head_width, "head_width")
    text_heads, text_mlp = _blocks(shapes, "", text_head_width, "text_head_width")
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
    """Every tensor of the layout is there in its shape, and no other. Raises ImportRefused naming tensor, shape and preset."""
    by = options.preset or "the model's configuration"
    wanted = state_shapes(layout)
    for name in [*wanted, *(name for name in shapes if name not in wanted)]:
        there, needed = shapes.get(name), wanted.get(name)
        if there == needed:
            continue
        found = f"has no {name}" if there is None else f"has {name} of shape {there}"
        says = f"{by} has none" if needed is None else f"{by} has {needed}"
        raise ImportRefused("/preset", options.preset, f"does not fit: the file {found}, where {says}; {_other_preset(shapes)}")


def expect_auto_preset(layout: Layout, name: str) -> None:
    """What is common to all that was pruned from the published original. Raises ImportRefused."""
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
    wanted = state_shapes(full)
    for tensor, shape, fits in fixed:
        if not fits:
            shape = shape or state_shapes(layout)[tensor]
            raise ImportRefused("/preset", name, f"does not fit: the file has {tensor} of shape {shape}, "
                                f"{name} was pruned from {AUTO_ORIGINAL}, which has {wanted[tensor]}")
    for prefix, tower, original in (("visual.", layout.image, full.image), ("", layout.text, full.text)):
        assert tower.heads and tower.mlp and original.heads and original.mlp  # noqa: PT018
        if len(tower.heads) > len(original.heads) or max(tower.heads) > original.heads[0] or max(tower.mlp) > original.mlp[0]:
            raise ImportRefused("/preset", name, f"does not fit: the file's {prefix}transformer has heads {tower.heads} and MLPs "
                                f"{tower.mlp}, {name} was pruned from {AUTO_ORIGINAL} with {original.heads} and {original.mlp}")


def size_warnings(summary: StudentSummary, preset: str) -> list[str]:
    """Where a file's size is not the one in an automatic preset's name."""
    named = SIZE_IN_NAME.search(preset)
    if named is None:
        return []
    found = (summary.image_params / 1e6, summary.text_params_without_embedding / 1e6)
    return [
        f"{tower} tower: {size:.1f}M parameters, {preset} says {said}M"
        for tower, size, said in zip(("image", "text"), found, map(int, named.groups()), strict=True)
        if abs(size - said) > SIZE_MARGIN_M
    ]


def origin_config(origin: str) -> dict[str, Any]:
    """open_clip's entry of `MODEL@TAG`: `quick_gelu`, `mean`, `std`. Raises ImportRefused."""
    model, at, tag = origin.partition("@")
    config: dict[str, Any] = get_pretrained_cfg(model.replace("/", "-"), tag) if at else {}
    if not config:
        tags = list_pretrained_tags_by_model(model.replace("/", "-"))
        known = f"{model} has {', '.join(tags)}" if tags else "name it as MODEL@TAG, as ViT-B-32@openai"
        raise ImportRefused("/origin", origin, f"is no weights of open_clip; {known}")
    return {**config, "quick_gelu": bool(config.get("quick_gelu")) or "quickgelu" in model.lower()}


def quick_gelu(
    layout: Layout, configs: Mapping[str, dict[str, Any]], options: ImportOptions, *, official: bool
) -> tuple[bool, str]:
    """Which activation the blocks have, and what said so. Raises ImportRefused where nothing does.

    The published program builds students without QuickGELU whatever their teacher has, unless --force-quick-gelu was
    given (F18), and the published configurations do not ask for it: so an @openai origin says nothing about its files.
    """
    if options.quick_gelu is not None:
        return options.quick_gelu, "the request"
    if configs.keys() & {LAYOUT_FILE, CONFIG_FILE}:
        return layout.quick_gelu, LAYOUT_FILE if LAYOUT_FILE in configs else CONFIG_FILE
    if options.preset is not None and "quickgelu" in options.preset.lower():
        return True, f"the architecture {options.preset}"
    if options.origin is not None:
        told = bool(origin_config(options.origin)["quick_gelu"])
        if not (official and told):
            return told, f"the origin {options.origin}"
    if official and options.preset is not None and options.preset.startswith("TinyCLIP-"):
        return False, f"the published configuration of {options.preset}"
    raise ImportRefused(
        "/quick_gelu", None,
        "is needed: the file does not say which activation its model has, and the wrong one spoils its embeddings; "
        "give true (--quick-gelu) for OpenAI's models and what goes on from them, false (--gelu) for GELU"
        + ("" if official else ", or the origin of the weights, as ViT-B-32@openai")
    )


def _configured(configs: Mapping[str, dict[str, Any]]) -> Layout:
    try:
        if LAYOUT_FILE in configs:
            return Layout.model_validate(configs[LAYOUT_FILE])
        return config_layout(configs[CONFIG_FILE], CONFIG_FILE)
    except (ValueError, KeyError, TypeError, WeightsError) as error:  # UnsupportedArchitecture is a ValueError
        raise ImportRefused("/file", None, f"has a configuration that cannot be used: {error}") from error


def _blocks(shapes: Shapes, prefix: str, head_width: int, field: str) -> tuple[list[int], list[int]]:
    """Heads and MLP units of every block of a tower; 0 where a branch is gone."""
    pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
    count = max((int(found[1]) for found in map(pattern.match, shapes) if found), default=-1) + 1
    if not 1 <= count <= 1000:
        raise ImportRefused("/file", None, f"has no {prefix}transformer.resblocks.0 to {count}; it is no ViT with a text tower")
    heads, mlp = [], []
    for layer in range(count):
        block = f"{prefix}transformer.resblocks.{layer}."
        rows = shapes.get(f"{block}attn.in_proj_weight", (0,))[0]
        if rows % (3 * head_width):
            found = f"{block}attn.in_proj_weight has {rows} rows, no multiple of 3 x {head_width}"
            raise ImportRefused(f"/{field}", head_width, f"does not fit: {found}; give the width of a head")
        heads.append(rows // (3 * head_width))
        mlp.append(shapes.get(f"{block}mlp.c_fc.weight", (0,))[0])
    return heads, mlp


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if len(shapes.get(name, ())) != axes:
        raise _misfit(name, shapes.get(name), f"{axes} axes are needed")
    return shapes[name]


def _misfit(name: str, shape: tuple[int, ...] | None, needed: str) -> ImportRefused:
    found = f"has no {name}" if shape is None else f"has {name} of shape {shape}"
    return ImportRefused("/file", None, f"{found}: {needed}")


def _other_preset(shapes: Shapes) -> str:
    fits = [name for name, layout in PRESETS.items() if state_shapes(layout) == dict(shapes)]
    return f"it fits {' or '.join(fits)}" if fits else "name the preset that the file is of"

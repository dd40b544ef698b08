"""Layouts from specs, against the published counts and open_clip itself."""

import open_clip
import pytest
import torch
from tinyclip.schemas.layouts import Architecture, Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip_workers.model.architecture import (
    UnsupportedArchitecture,
    build_model,
    layout_from_config,
    open_clip_config,
    resolve_layout,
)
from tinyclip_workers.model.layouts import PRESETS, ImpossibleStudent
from tinyclip_workers.model.summary import summarize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SMALL_VIT = StudentSpec(
    embed_dim=32,
    image=ImageTower(layers=2, width=64, head_width=32, patch_size=8, image_size=32),
    text=TextTower(layers=2, width=48, heads=3, context_length=12, vocab_size=100),
)
SMALL_RESNET = StudentSpec(
    embed_dim=24,
    image=ImageTower(layers=(1, 2, 1, 1), width=8, head_width=32, image_size=64),
    text=TextTower(layers=1, width=64, context_length=16, vocab_size=90),
)

PUBLISHED_MILLIONS = [
    ("TinyCLIP-ViT-39M-16-Text-19M", 38.587, 19.217, 44.514),
    ("TinyCLIP-ViT-8M-16-Text-3M", 8.277, 2.521, 15.169),
    ("TinyCLIP-ViT-61M-32-Text-29M", 61.411, 28.674, 53.971),
    ("TinyCLIP-ViT-40M-32-Text-19M", 39.692, 19.217, 44.514),
    ("TinyCLIP-ResNet-30M-Text-29M", 29.584, 28.936, 54.233),
    ("TinyCLIP-ResNet-19M-Text-19M", 18.597, 19.479, 44.776),
    ("ViT-B-32", 87.849, 38.131, 63.428),
    ("ViT-B-16", 86.193, 38.131, 63.428),
    ("RN50", 38.317, 38.393, 63.690),
]


@pytest.mark.parametrize(("name", "image", "text", "text_with_embedding"), PUBLISHED_MILLIONS)
def test_presets_have_the_published_sizes(name: str, image: float, text: float, text_with_embedding: float) -> None:
    summary = summarize(resolve_layout(StudentSpec(preset=name), None))

    assert round(summary.image_params / 1e6, 3) == image
    assert round(summary.text_params_without_embedding / 1e6, 3) == text
    assert round(summary.text_params / 1e6, 3) == text_with_embedding


@pytest.mark.parametrize("student", [SMALL_VIT, SMALL_RESNET], ids=["vit", "resnet"])
def test_macs_equal_those_that_torch_counts(student: StudentSpec) -> None:
    layout = resolve_layout(student, None)
    model = build_model(layout)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the fused kernel goes uncounted
        model.encode_image(torch.zeros(1, 3, layout.image_size, layout.image_size))
        model.encode_text(torch.zeros(1, layout.context_length, dtype=torch.long))

    assert counter.get_total_flops() == 2 * summarize(layout).macs


@pytest.mark.parametrize("layout", [*PRESETS.values()], ids=[*PRESETS])
def test_a_layout_survives_a_round_trip_through_an_open_clip_config(layout: Layout) -> None:
    assert layout_from_config(open_clip_config(layout)) == layout


def test_an_odd_mlp_width_survives_a_round_trip_through_a_ratio() -> None:
    base = resolve_layout(SMALL_VIT, None)
    for units in range(1, 200):
        text = base.text.model_copy(update={"mlp": [units] * 2})
        layout = base.model_copy(update={"text": text})
        assert layout_from_config(open_clip_config(layout)) == layout


def test_what_is_omitted_comes_from_the_parent() -> None:
    parent = resolve_layout(SMALL_RESNET, None).model_copy(update={"quick_gelu": True})

    student = resolve_layout(StudentSpec(image=ImageTower(width=6)), parent)

    assert student.image.model_dump() == {**parent.image.model_dump(), "width": 6}
    assert student.text == parent.text
    assert student.embed_dim == parent.embed_dim
    assert student.quick_gelu


def test_a_narrower_text_tower_keeps_the_head_width_and_the_mlp_ratio() -> None:
    parent = resolve_layout(SMALL_VIT.model_copy(update={"text": TextTower(layers=4, width=96, heads=3, mlp_ratio=2)}), None)

    text = resolve_layout(StudentSpec(text=TextTower(width=64, layers=2)), parent).text

    assert (text.head_width, text.heads, text.mlp) == (32, [2, 2], [128, 128])


def test_a_preset_takes_the_activation_of_its_parent() -> None:
    parent = PRESETS["ViT-B-32"].model_copy(update={"quick_gelu": True})

    assert resolve_layout(StudentSpec(preset="TinyCLIP-ViT-40M-32-Text-19M"), parent).quick_gelu


def test_a_fresh_model_is_the_same_for_the_same_seed() -> None:
    layout = resolve_layout(SMALL_VIT, None)

    torch.manual_seed(3)
    first = build_model(layout).state_dict()
    torch.manual_seed(3)
    second = build_model(layout).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


TEXT = TextTower(layers=1, width=64)
IMPOSSIBLE = {
    "image/layers": StudentSpec(embed_dim=8, image=ImageTower(width=64), text=TEXT),
    "image/width": StudentSpec(embed_dim=8, image=ImageTower(layers=2, width=100, patch_size=16), text=TEXT),
    "image/head_width": StudentSpec(image=ImageTower(head_width=50)),
    "image/patch_size": StudentSpec(embed_dim=8, image=ImageTower(layers=2, width=64, patch_size=15), text=TEXT),
    "image/image_size": StudentSpec(embed_dim=8, image=ImageTower(layers=(1, 1, 1, 1), width=32, image_size=48), text=TEXT),
    "image/mlp_ratio": StudentSpec(embed_dim=8, image=ImageTower(layers=(1, 1, 1, 1), width=32, mlp_ratio=2), text=TEXT),
    "text/heads": StudentSpec(text=TextTower(heads=5)),
    "text/width": StudentSpec(text=TextTower(width=100)),
    "text/layers": StudentSpec(embed_dim=8, image=ImageTower(layers=2, width=64, patch_size=16), text=TextTower(width=64)),
    "embed_dim": StudentSpec(image=ImageTower(layers=2, width=64, patch_size=16), text=TEXT),
    "text": StudentSpec(embed_dim=8, image=ImageTower(layers=2, width=64, patch_size=16)),
    "image": StudentSpec(embed_dim=8, text=TEXT),
}


@pytest.mark.parametrize("field", [*IMPOSSIBLE])
def test_an_impossible_student_names_its_field(field: str) -> None:
    student = IMPOSSIBLE[field]
    parent = None if student.embed_dim or field == "embed_dim" else PRESETS["ViT-B-32"]

    with pytest.raises(ImpossibleStudent) as error:
        resolve_layout(student, parent)

    assert error.value.field == field


def test_a_resnet_width_must_fit_its_heads() -> None:
    with pytest.raises(ImpossibleStudent, match="try 32 or 34") as error:
        resolve_layout(StudentSpec(image=ImageTower(width=33)), PRESETS["RN50"])

    assert (error.value.field, error.value.value) == ("image/width", 33)


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ImpossibleStudent, match="did you mean TinyCLIP-ViT-40M-32-Text-19M"):
        resolve_layout(StudentSpec(preset="TinyCLIP-ViT-40M-Text-19M"), None)


@pytest.mark.parametrize(("name", "millions"), [("MobileCLIP2-S0", 11), ("convnext_base", 88)])
def test_an_architecture_of_open_clip_is_named(name: str, millions: float) -> None:
    sizes = {"image": {"image_size": 64}, "text": {"context_length": 12}, "embed_dim": 24}

    layout = resolve_layout(StudentSpec.model_validate({"preset": name, **sizes}), None)

    assert isinstance(layout, Architecture)
    assert (layout.image_size, layout.context_length, layout.embed_dim) == (64, 12, 24)
    assert layout.config["vision_cfg"]["timm_model_name"] == open_clip.get_model_config(name)["vision_cfg"]["timm_model_name"]
    assert summarize(layout).image_params == pytest.approx(millions * 1e6, rel=0.05)


def test_an_auto_preset_is_refused_because_its_shape_is_in_its_checkpoint() -> None:
    with pytest.raises(ImpossibleStudent, match="only in its checkpoint"):
        resolve_layout(StudentSpec(preset="TinyCLIP-auto-ViT-63M-32-Text-31M"), None)


def test_an_open_clip_model_that_is_no_plain_clip_is_refused_by_name() -> None:
    config = {"embed_dim": 8, "vision_cfg": {"timm_model_name": "convnext_base"}, "text_cfg": {}}

    with pytest.raises(UnsupportedArchitecture, match=r"vision_cfg\.timm_model_name is set"):
        layout_from_config(config)


def test_blocks_of_different_shapes_are_not_built_as_open_clip() -> None:
    layout = resolve_layout(SMALL_VIT, None)
    pruned = layout.model_copy(update={"text": layout.text.model_copy(update={"heads": [3, 1]})})

    with pytest.raises(ValueError, match="differ"):
        build_model(pruned)
